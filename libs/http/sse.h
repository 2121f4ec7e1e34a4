#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace parley::http {

struct SseEvent {
  std::string type;  // "message" unless the stream says otherwise
  std::string data;  // lines joined by \n
};

// Takes server-sent events (WHATWG HTML, section 9.2) out of the pieces of a response body.
// Comments, ids and retry times are read over. Not thread-safe.
class SseParser {
 public:
  static constexpr size_t kMaxEventBytes = 1 << 20;

  // False when an event grows beyond kMaxEventBytes: give up.
  bool Append(std::string_view bytes);
  // The next complete event.
  std::optional<SseEvent> Next();

 private:
  void OnLine(std::string_view line);

  std::string buffer_;
  size_t taken_ = 0;
  SseEvent current_;
  bool has_data_ = false;
  bool complete_ = false;  // current_ waits to be taken
};

}  // namespace parley::http
