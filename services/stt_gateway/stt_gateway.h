#pragma once
// The speech-to-text gateway: recognisers behind parley.speech.v1.SpeechToTextService.
#include <absl/time/time.h>

#include <functional>
#include <string>
#include <vector>

#include "gateway/provider.h"
#include "gateway/shared.h"
#include "service/service.h"

namespace parley {

struct SttGatewayConfig {
  service::CommonConfig common;
  std::string decoder;
  std::string model_dir = "/usr/share/pocketsphinx/model/en-us";
  int max_streams = 1024;
  int max_decoders = 64;
  int64_t memory_limit = 256 << 20;
  absl::Duration open_timeout = absl::Seconds(10);
  absl::Duration final_timeout = absl::Seconds(10);
  absl::Duration idle_timeout = absl::Minutes(10);
  absl::Duration max_stream_time = absl::Hours(24);
  bool preload = true;
  gateway::SharedConfig shared;
  gateway::ProviderConfig openai;
  absl::Duration openai_timeout = absl::Seconds(4);
  gateway::ProviderConfig deepgram;
  gateway::WyomingConfig wyoming;
  absl::Duration wyoming_timeout = absl::Seconds(4);
  std::string script;
  std::vector<std::string> riva_engines = {"pocketsphinx"};

  void Bind(config::Table& table);
};

namespace stt_gateway {

// Serves until a stop is asked for. The exit code of main.
int Run(const SttGatewayConfig& config, service::Context& context);
// As above; `started` hears the ports (they may be 0 in the configuration).
int Run(const SttGatewayConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started);

}  // namespace stt_gateway
}  // namespace parley
