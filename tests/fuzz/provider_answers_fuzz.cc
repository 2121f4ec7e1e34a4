// What providers and child programs answer, apart from streams: a status, a transcript, a table.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/status.h"
#include "engines/espeak/espeak.h"
#include "engines/openai/chat_codec.h"
#include "engines/openai/provider.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::engines;  // NOLINT
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string_view first = bytes.substr(0, bytes.find('\n'));
  const std::string_view rest = bytes.substr(first.size());
  for (const int status : {400, 401, 429, 500}) {
    const absl::Status error = ChatError(status, bytes, first);
    if (error.ok() || parley::Message(error).size() > 500) std::abort();
  }
  static_cast<void>(ChatError(429, rest, first).ok());
  static_cast<void>(openai::TranscriptOf(bytes).ok());
  static_cast<void>(ParseEspeakVoices(bytes));
  return 0;
}
