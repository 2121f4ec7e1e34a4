#include "agent/job/frame.h"

#include "base/check.h"
#include "base/status.h"

namespace parley::agent {
namespace {

constexpr size_t kHead = 4;

uint32_t ReadLength(const char* bytes) {
  uint32_t length = 0;
  for (size_t i = 0; i < kHead; ++i) {
    length |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  }
  return length;
}

}  // namespace

void AppendFrame(std::string_view payload, std::string& out) {
  PARLEY_CHECK(payload.size() <= kMaxFrame);
  for (size_t i = 0; i < kHead; ++i) {
    out.push_back(static_cast<char>((payload.size() >> (8 * i)) & 0xff));
  }
  out.append(payload);
}

void FrameReader::Append(std::string_view bytes) {
  if (start_ > 0) {
    buffer_.erase(0, start_);
    start_ = 0;
  }
  buffer_.append(bytes);
}

absl::StatusOr<std::optional<std::string_view>> FrameReader::Next() {
  if (buffered() < kHead) return std::optional<std::string_view>();
  const uint32_t length = ReadLength(buffer_.data() + start_);
  if (length > kMaxFrame) {
    return InvalidArgument("a frame of {} bytes; at most {} are allowed", length, kMaxFrame);
  }
  if (buffered() < kHead + length) return std::optional<std::string_view>();
  const std::string_view frame(buffer_.data() + start_ + kHead, length);
  start_ += kHead + length;
  return std::optional<std::string_view>(frame);
}

}  // namespace parley::agent
