#pragma once
// The text-to-speech gateway: voices behind parley.speech.v1.TextToSpeechService.
#include <absl/time/time.h>

#include <functional>
#include <string>
#include <vector>

#include "gateway/provider.h"
#include "gateway/shared.h"
#include "service/service.h"

namespace parley {

struct TtsGatewayConfig {
  service::CommonConfig common;
  int max_streams = 2048;
  int voices = 8;           // sentences made at a time
  int remote_voices = 256;  // the same, of remote engines
  std::string espeak = "espeak-ng";
  absl::Duration idle_timeout = absl::Minutes(10);
  absl::Duration max_stream_time = absl::Hours(24);
  gateway::SharedConfig shared;
  std::string cache_dir;  // "" = nothing is kept
  int64_t cache_size = int64_t{256} << 20;
  absl::Duration cache_lifetime = absl::Hours(24);
  std::string peer_address;
  gateway::ProviderConfig openai;
  std::string openai_voice;
  absl::Duration openai_first_audio = absl::Milliseconds(1600);
  gateway::WyomingConfig wyoming;
  std::string wyoming_voice;
  std::string script;
  std::vector<std::string> riva_engines = {"flite"};

  void Bind(config::Table& table);
};

namespace tts_gateway {

// Serves until a stop is asked for. The exit code of main.
int Run(const TtsGatewayConfig& config, service::Context& context);
// As above; `started` hears the ports (they may be 0 in the configuration).
int Run(const TtsGatewayConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started);

}  // namespace tts_gateway
}  // namespace parley
