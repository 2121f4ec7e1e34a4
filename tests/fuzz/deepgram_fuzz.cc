// What a Deepgram-style server sends: a message or an error, with times and confidences that can be
// reckoned with.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/strings.h"
#include "engines/deepgram/messages.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::engines::deepgram;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto message = ParseMessage(text);
  if (!message.ok()) return 0;
  constexpr size_t kMostIdBytes = 64;
  if (message->request_id.size() > kMostIdBytes) std::abort();
  const Results& results = message->results;
  constexpr int64_t kMostMs = 2'000'000'000;
  if (results.end_ms < 0 || results.end_ms > kMostMs || message->at_ms < 0 ||
      message->at_ms > kMostMs) {
    std::abort();
  }
  if (!(results.transcript.confidence >= 0 && results.transcript.confidence <= 1)) std::abort();
  if (!parley::IsValidUtf8(results.transcript.text)) std::abort();
  for (const auto& word : results.transcript.words) {
    if (word.start_ms < 0 || word.end_ms < word.start_ms || word.end_ms > kMostMs) std::abort();
    if (!(word.confidence >= 0 && word.confidence <= 1)) std::abort();
  }
  return 0;
}
