#include "audio/pcm_stream.h"

#include "base/status.h"

namespace parley::audio {
namespace {

constexpr std::string_view kRiff = "RIFF";
constexpr size_t kFirstChunk = 12;  // after RIFF, the size, and WAVE
constexpr size_t kChunkHead = 8;

// Where the samples begin; nullopt: more bytes are needed.
std::optional<size_t> DataAt(std::string_view bytes) {
  if (bytes.size() < kRiff.size() && kRiff.starts_with(bytes)) return std::nullopt;
  if (!bytes.starts_with(kRiff)) return 0;
  for (size_t at = kFirstChunk; at + kChunkHead <= bytes.size();) {
    if (bytes.substr(at, 4) == "data") return at + kChunkHead;
    uint32_t size = 0;
    for (int i = 3; i >= 0; --i)
      size = size << 8 | static_cast<unsigned char>(bytes[at + 4 + static_cast<size_t>(i)]);
    at += kChunkHead + size_t{size} + size % 2;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::string> PcmStream::Append(std::string_view bytes) {
  waiting_ += bytes;
  if (!head_done_) {
    const std::optional<size_t> data = DataAt(waiting_);
    if (!data.has_value()) {
      if (waiting_.size() > kMaxHeadBytes)
        return InvalidArgument("a WAV file whose samples do not begin within {} bytes",
                               kMaxHeadBytes);
      return std::string();
    }
    head_done_ = true;
    waiting_.erase(0, *data);
  }
  const size_t frame = static_cast<size_t>(channels_) * 2;
  const size_t whole = waiting_.size() / frame * frame;
  std::string samples;
  if (channels_ == 1) {
    samples = waiting_.substr(0, whole);
  } else {
    for (size_t at = 0; at < whole; at += frame) samples.append(waiting_, at, 2);
  }
  waiting_.erase(0, whole);
  return samples;
}

}  // namespace parley::audio
