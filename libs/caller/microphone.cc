#include "caller/microphone.h"

#include <algorithm>
#include <utility>

#include "audio/level.h"
#include "base/status.h"

namespace parley::caller {
namespace {

// From then on the packets of silence are alike: the last is sent again, as encoding is most of what
// a caller who listens costs.
constexpr int kSettledFrames = 25;

}  // namespace

absl::StatusOr<Microphone> Microphone::Create(int opus_complexity, bool silence) {
  PARLEY_ASSIGN_OR_RETURN(audio::OpusEncoder encoder,
                          audio::OpusEncoder::Create({.complexity = opus_complexity}));
  return Microphone(std::move(encoder), silence);
}

Microphone::Microphone(audio::OpusEncoder encoder, bool silence)
    : encoder_(std::move(encoder)),
      silence_(silence),
      frame_(audio::kRoomFrameSamples),
      packet_(audio::OpusEncoder::kMaxPacketBytes) {}

void Microphone::Queue(std::span<const int16_t> samples_48k) {
  if (!playing()) Clear();
  queue_.insert(queue_.end(), samples_48k.begin(), samples_48k.end());
}

std::optional<Microphone::Frame> Microphone::Next() {
  const uint32_t timestamp = std::exchange(timestamp_, timestamp_ + audio::kRoomFrameSamples);
  const bool was_playing = playing();
  if (!was_playing && !silence_) return std::nullopt;
  const size_t count = std::min(queue_.size() - read_, frame_.size());
  std::copy_n(queue_.begin() + static_cast<std::ptrdiff_t>(read_), count, frame_.begin());
  std::fill(frame_.begin() + static_cast<std::ptrdiff_t>(count), frame_.end(), int16_t{0});
  read_ += count;
  const bool last = was_playing && !playing();
  if (last) Clear();
  silent_frames_ = was_playing ? 0 : std::min(silent_frames_, kSettledFrames) + 1;
  if (silent_frames_ <= kSettledFrames) {
    const auto bytes = encoder_.Encode(frame_, packet_);
    if (!bytes.ok()) return std::nullopt;
    packet_bytes_ = *bytes;
  }
  return Frame{timestamp, audio::Level(frame_),
               std::string_view(reinterpret_cast<const char*>(packet_.data()), packet_bytes_),
               frame_, last};
}

}  // namespace parley::caller
