#include "agent/job/call_sound.h"

#include <algorithm>
#include <utility>

#include "audio/pcm.h"
#include "base/status.h"

namespace parley::agent {
namespace {

constexpr int64_t kFrame = CallSound::kRateHz / 50;
constexpr int64_t kLateUs = 300'000;
// What comes a little late or early follows what was before; a longer pause is one.
constexpr int64_t kMaxShift = CallSound::kRateHz * 60 / 1000;
constexpr size_t kMaxPiece = 16'000;  // samples of the caller's at a time

}  // namespace

absl::StatusOr<std::unique_ptr<CallSound>> CallSound::Create(Sink sink) {
  PARLEY_ASSIGN_OR_RETURN(
      audio::OpusEncoder encoder,
      audio::OpusEncoder::Create(
          {.rate_hz = kRateHz, .channels = 2, .bitrate_bps = 48'000, .complexity = 3}));
  PARLEY_ASSIGN_OR_RETURN(audio::Resampler resampler,
                          audio::Resampler::Create(audio::kVoiceRateHz, kRateHz));
  return std::unique_ptr<CallSound>(
      new CallSound(std::move(sink), std::move(encoder), std::move(resampler)));
}

CallSound::CallSound(Sink sink, audio::OpusEncoder encoder, audio::Resampler resampler)
    : sink_(std::move(sink)), encoder_(std::move(encoder)), resampler_(std::move(resampler)) {
  wide_.resize(resampler_.MaxOutput(kMaxPiece));
}

void CallSound::OnCaller(std::span<const int16_t> samples, int64_t now_us) {
  samples = samples.first(std::min(samples.size(), kMaxPiece));
  const size_t count = resampler_.Process(samples, wide_);
  Put(caller_, std::span(wide_).first(count), now_us);
}

void CallSound::OnAgent(std::span<const int16_t> samples, int64_t now_us) {
  Put(agent_, samples, now_us);
}

void CallSound::Put(Side& side, std::span<const int16_t> samples, int64_t now_us) {
  Advance(now_us);
  const int64_t end = audio::MicrosToSamples(std::max<int64_t>(now_us - start_us_, 0), kRateHz);
  const int64_t begin = end - static_cast<int64_t>(samples.size());
  int64_t at = side.end;
  if (begin - side.end > kMaxShift) at = begin;
  // Nobody is heard before what is coded already.
  at = std::max(at, coded_);
  // A side that sends faster than time passes would fill the memory.
  if (at - end > kRateHz) return;
  side.samples.insert(side.samples.end(), static_cast<size_t>(at - std::max(side.end, coded_)), 0);
  side.samples.insert(side.samples.end(), samples.begin(), samples.end());
  side.end = at + static_cast<int64_t>(samples.size());
}

void CallSound::Advance(int64_t now_us, bool all) {
  const int64_t due = all ? std::max(caller_.end, agent_.end)
                          : audio::MicrosToSamples(now_us - kLateUs - start_us_, kRateHz);
  std::array<int16_t, 2 * kFrame> frame;
  std::array<uint8_t, audio::OpusEncoder::kMaxPacketBytes> packet;
  const auto next = [](Side& side) -> int16_t {
    if (side.samples.empty()) return 0;
    const int16_t sample = side.samples.front();
    side.samples.pop_front();
    return sample;
  };
  while (coded_ + (all ? 1 : kFrame) <= due) {
    for (int64_t i = 0; i < kFrame; ++i) {
      frame[static_cast<size_t>(2 * i)] = next(caller_);
      frame[static_cast<size_t>(2 * i + 1)] = next(agent_);
    }
    coded_ += kFrame;
    const auto bytes = encoder_.Encode(frame, packet);
    if (bytes.ok()) sink_({reinterpret_cast<const char*>(packet.data()), *bytes});
  }
}

}  // namespace parley::agent
