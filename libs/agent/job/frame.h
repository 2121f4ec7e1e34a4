#pragma once
// The framing of parley.job.v1: a 4-byte little-endian length, then that many bytes.
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace parley::agent {

inline constexpr size_t kMaxFrame = 1 << 20;

// Appends `payload` as one frame. `payload` is at most kMaxFrame bytes.
void AppendFrame(std::string_view payload, std::string& out);

// Cuts a byte stream into frames. Not thread-safe.
class FrameReader {
 public:
  void Append(std::string_view bytes);
  // The next whole frame, valid until the next call; nothing when more bytes are needed.
  //   InvalidArgument  a length over kMaxFrame: the stream cannot be read on
  absl::StatusOr<std::optional<std::string_view>> Next();
  size_t buffered() const { return buffer_.size() - start_; }

 private:
  std::string buffer_;
  size_t start_ = 0;
};

}  // namespace parley::agent
