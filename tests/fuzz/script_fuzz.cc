// Scripts of the scripted engines, as files have them: read in full, or refused.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engines/scripted/script.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto script = parley::engines::Script::Parse({reinterpret_cast<const char*>(data), size});
  if (!script.ok()) return 0;
  const bool sound = script->stt.delay <= absl::Minutes(1) && !script->stt.utterances.empty() &&
                     script->tts.sample_rate_hz >= 8'000 && !script->llm.answers.empty();
  if (!sound) std::abort();
  return 0;
}
