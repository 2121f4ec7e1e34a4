#include "http/sse.h"

#include <utility>

namespace parley::http {

bool SseParser::Append(std::string_view bytes) {
  if (buffer_.size() - taken_ + current_.data.size() + bytes.size() > 2 * kMaxEventBytes)
    return false;
  buffer_.erase(0, taken_);
  taken_ = 0;
  buffer_ += bytes;
  return true;
}

std::optional<SseEvent> SseParser::Next() {
  while (true) {
    const std::string_view rest = std::string_view(buffer_).substr(taken_);
    const size_t end = rest.find_first_of("\r\n");
    if (end == std::string_view::npos) return std::nullopt;
    // A \r at the very end may be half of a \r\n.
    if (rest[end] == '\r' && end + 1 == rest.size()) return std::nullopt;
    const bool pair = rest[end] == '\r' && rest[end + 1] == '\n';
    OnLine(rest.substr(0, end));
    taken_ += end + (pair ? 2 : 1);
    if (!complete_) continue;
    complete_ = false;
    SseEvent event = std::exchange(current_, {});
    if (event.type.empty()) event.type = "message";
    return event;
  }
}

void SseParser::OnLine(std::string_view line) {
  if (line.empty()) {
    complete_ = std::exchange(has_data_, false);
    if (!complete_) current_ = {};
    return;
  }
  const size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value =
      colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
  if (!value.empty() && value[0] == ' ') value.remove_prefix(1);
  if (field == "event") {
    current_.type = value;
  } else if (field == "data") {
    if (has_data_) current_.data += '\n';
    current_.data += value;
    has_data_ = true;
  }
}

}  // namespace parley::http
