// What Riva's clients send, as protobuf and as the gateways read it: a request of the gateway's own
// that names engines, or an error.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "stt_gateway/riva_request.h"
#include "tts_gateway/riva_request.h"

namespace {

const std::vector<std::string> kEngines = {"pocketsphinx", "openai"};

void Hear(std::string_view bytes) {
  nvidia::riva::asr::RecognizeRequest request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  auto config = parley::ReadRivaConfig(request.config(), kEngines, true);
  if (!config.ok()) {
    if (parley::Message(config.status()).size() < 10) std::abort();
    return;
  }
  if (config->config().engines().empty() || config->config().engines(0).engine().empty())
    std::abort();
  const int channels = parley::RivaChannels(request.config());
  if (channels < 1 || channels > parley::kMaxRivaChannels) std::abort();
  const auto audio = parley::ReadRivaAudio(request, *config);
  if (!audio.ok()) return;
  if (audio->empty() || audio->size() % 2 != 0 || audio->size() > 2 * request.audio().size())
    std::abort();
}

void Say(std::string_view bytes) {
  nvidia::riva::tts::SynthesizeSpeechRequest request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const auto config = parley::ReadRivaVoice(request, kEngines);
  if (config.ok() &&
      (config->config().voices().empty() || config->config().voices(0).engine().empty())) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  Hear(bytes);
  Say(bytes);
  return 0;
}
