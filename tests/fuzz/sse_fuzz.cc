#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engines/openai/chat_codec.h"
#include "http/sse.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  parley::http::SseParser parser;
  parley::engines::ChatAssembler answer;
  // The first byte says how the stream is cut.
  const size_t piece = size > 0 ? 1 + data[0] % 64 : 1;
  while (!text.empty()) {
    const size_t take = text.size() < piece ? text.size() : piece;
    if (!parser.Append(text.substr(0, take))) return 0;
    text.remove_prefix(take);
    while (const auto event = parser.Next()) {
      if (!answer.OnChunk(event->data).ok()) return 0;
    }
  }
  answer.Finish().status().IgnoreError();
  return 0;
}
