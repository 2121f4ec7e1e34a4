// What a realtime provider sends, line by line, in the middle of a session that asks and cancels.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engines/openai/realtime_codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using parley::engines::RealtimeCodec;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  // The first byte says who detects turns.
  parley::speech::RealtimeConfig config;
  config.server_turns = size > 0 && data[0] % 2 == 1;
  auto codec = RealtimeCodec::Create(config, "m");
  if (!codec.ok()) return 0;
  uint32_t responses = 0;
  for (int64_t now_us = 0; !text.empty(); now_us += 300'000) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line == "respond") {
      codec->Respond(++responses, "", "").IgnoreError();
    } else if (line == "cancel") {
      codec->Cancel(responses, now_us);
    } else if (line == "truncate") {
      codec->Truncate(responses, 40);
    } else if (line == "commit") {
      codec->Commit(responses + 1);
    } else if (line == "clear") {
      codec->Clear(responses + 1);
    } else if (!codec->OnMessage(line).ok()) {
      return 0;
    }
    codec->Check(now_us);
    codec->TakeOut();
    codec->TakeEvents();
  }
  return 0;
}
