#pragma once
// The framing of parley.job.v1: a 4-byte little-endian length, then that many bytes.
#include <absl/status/statusor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace parley::agent {

inline constexpr size_t kMaxFrame = 1 << 20;

// Appends `payload` as one frame. `payload` is at most kMaxFrame bytes.
void AppendFrame(std::string_view payload, std::string& out);

// Parses a ToJob or FromJob into `message`, which was parsed into before. A oneof frees what it
// held; a frame of audio after a frame of audio keeps its memory here, so that nothing is
// allocated.
template <typename Message>
bool ParseAgain(std::string_view bytes, Message& message) {
  const int size = static_cast<int>(bytes.size());
  if (!message.has_audio()) return message.ParseFromArray(bytes.data(), size);
  message.mutable_audio()->Clear();
  message.clear_seq();
  if constexpr (requires { message.clear_time_us(); }) message.clear_time_us();
  message.GetReflection()->MutableUnknownFields(&message)->Clear();
  google::protobuf::io::CodedInputStream stream(reinterpret_cast<const uint8_t*>(bytes.data()),
                                                size);
  return message.MergeFromCodedStream(&stream) && stream.ConsumedEntireMessage();
}

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
