#include "agent/job/listener.h"

#include <algorithm>
#include <utility>

#include "audio/level.h"
#include "audio/pcm.h"
#include "base/status.h"

namespace parley::agent {
namespace {

using audio::kRoomRateHz;
using audio::kVoiceFrameSamples;
using audio::kVoiceRateHz;

constexpr size_t kRingSamples = kVoiceRateHz;
static_assert(kRingSamples % kVoiceFrameSamples == 0, "a frame is never cut in two");
// The recogniser gets 100 ms at a time, and what is left at the end of speech: a message costs more
// than its audio.
constexpr size_t kFeedSamples = 5 * kVoiceFrameSamples;
constexpr uint32_t kTicksPerSample = kRoomRateHz / kVoiceRateHz;
// A longer gap is a pause of the sender's, not loss.
constexpr size_t kMaxConcealedSamples = 3 * kVoiceFrameSamples;
// Softer than this is below where the detector of voices begins (-52 dBov), and some.
constexpr uint32_t kSoftLevel = 60;  // -dBov
// Decoded after the last louder frame, in what ends an utterance or after it: with what is kept,
// all that Feed() asks for at the beginning of the next (400 ms and what it took to be sure).
constexpr int kSoftDecoded = 30;
constexpr int kSoftTail = 20;    // of them; what was loud before no longer rings in the decoder
constexpr int kSoftProbe = 250;  // frames from one look at whether it is soft to the next
constexpr float kNotSoftDbov = -54;
constexpr size_t kMaxPcmSamples = size_t{kRoomRateHz} * 120 / 1000;  // of one message
constexpr size_t kMaxPcmBytes = kMaxPcmSamples * sizeof(int16_t);
// A frame is speech as a whole, but its end may not be: in pieces of 2.5 ms, below where the
// detector of voices begins.
constexpr size_t kPieceSamples = kVoiceRateHz / 400;
constexpr int64_t kPieceUs = 2'500;
constexpr float kNoSpeechDbov = -52;
// What Opus, as people's clients use it, moves sound back by.
constexpr int64_t kOpusDelayUs = 6'500;

}  // namespace

namespace {
std::shared_ptr<const audio::SileroModel>& Model() {
  static std::shared_ptr<const audio::SileroModel> model;
  return model;
}
}  // namespace

void UseVadModel(std::shared_ptr<const audio::SileroModel> model) { Model() = std::move(model); }
const std::shared_ptr<const audio::SileroModel>& VadModel() { return Model(); }

absl::StatusOr<std::unique_ptr<Listener>> Listener::Create(Sinks sinks,
                                                           std::unique_ptr<audio::Vad> vad) {
  PARLEY_ASSIGN_OR_RETURN(audio::OpusDecoder decoder, audio::OpusDecoder::Create(kVoiceRateHz));
  PARLEY_ASSIGN_OR_RETURN(audio::Resampler resampler,
                          audio::Resampler::Create(kRoomRateHz, kVoiceRateHz));
  return std::unique_ptr<Listener>(
      new Listener(std::move(sinks), std::move(vad), std::move(decoder), std::move(resampler)));
}

Listener::Listener(Sinks sinks, std::unique_ptr<audio::Vad> vad, audio::OpusDecoder decoder,
                   audio::Resampler resampler)
    : sinks_(std::move(sinks)),
      decoder_(std::move(decoder)),
      resampler_(std::move(resampler)),
      vad_(std::move(vad)),
      decoded_(audio::OpusDecoder::MaxSamples(kVoiceRateHz)),
      ring_(kRingSamples) {
  frame_.reserve(kVoiceFrameSamples);
  wide_.reserve(kMaxPcmSamples);
  narrow_.resize(resampler_.MaxOutput(kMaxPcmSamples));
  fed_.reserve(kFeedSamples + kRingSamples);
}

void Listener::OnOpus(std::string_view packet, uint32_t timestamp, uint32_t level) {
  // Who keeps the sound keeps all of it.
  soft_frames_ = !sinks_.heard && Softer(level) ? soft_frames_ + 1 : 0;
  const bool probe = soft_frames_ > 0 && soft_frames_ % kSoftProbe == 0;
  if (soft_frames_ == kSoftTail || probe) loudest_dbov_ = -127;
  if (soft_frames_ > kSoftDecoded && !feeding_ && !probe) return Keep(packet, timestamp);
  DecodeKept();
  Decode(packet, timestamp);
  if (soft_frames_ == kSoftDecoded || probe) level_false_ = loudest_dbov_ > kNotSoftDbov;
}

bool Listener::Softer(uint32_t level) {
  if (level > 0 && level < kLevelUnknown) level_known_ = true;
  return level_known_ && !level_false_ && level >= kSoftLevel;
}

void Listener::Keep(std::string_view packet, uint32_t timestamp) {
  if (kept_count_ == kMaxKept) {
    kept_first_ = (kept_first_ + 1) % kMaxKept;
    --kept_count_;
  }
  Kept& kept = kept_[(kept_first_ + kept_count_++) % kMaxKept];
  kept.packet.assign(packet);
  kept.timestamp = timestamp;
}

void Listener::DecodeKept() {
  for (; kept_count_ > 0; --kept_count_) {
    const Kept& kept = kept_[kept_first_];
    kept_first_ = (kept_first_ + 1) % kMaxKept;
    Decode(kept.packet, kept.timestamp);
  }
}

void Listener::Decode(std::string_view packet, uint32_t timestamp) {
  if (has_timestamp_) ConcealUntil(timestamp, packet);
  const auto count = decoder_.Decode(packet, decoded_);
  if (!count.ok()) return;  // the sender's fault; the next packet may be good
  has_timestamp_ = true;
  next_timestamp_ = timestamp + static_cast<uint32_t>(*count) * kTicksPerSample;
  codec_delay_us_ = kOpusDelayUs;
  Take(std::span(decoded_).first(*count));
}

// The frame right before `next` may stand in it once more; what is before that is made up.
void Listener::ConcealUntil(uint32_t timestamp, std::string_view next) {
  const size_t missing = (timestamp - next_timestamp_) / kTicksPerSample;
  if (missing == 0 || missing > kMaxConcealedSamples) return;
  const size_t last = std::min(missing, kVoiceFrameSamples);
  if (missing > last) {
    const auto count = decoder_.Conceal(std::span(decoded_).first(missing - last));
    if (count.ok()) Take(std::span(decoded_).first(*count));
  }
  const auto count = decoder_.Recover(next, std::span(decoded_).first(last));
  if (count.ok()) Take(std::span(decoded_).first(*count));
}

void Listener::OnPcm(std::string_view bytes) {
  wide_.clear();
  audio::AppendSamples(bytes.substr(0, kMaxPcmBytes), wide_);
  const size_t count = resampler_.Process(wide_, narrow_);
  codec_delay_us_ = 0;
  Take(std::span(narrow_).first(count));
}

void Listener::Feed(absl::Duration preroll) {
  const auto wanted =
      static_cast<size_t>(audio::MicrosToSamples(absl::ToInt64Microseconds(preroll), kVoiceRateHz));
  const size_t count = std::min(wanted, ring_filled_);
  size_t at = (ring_next_ + kRingSamples - count) % kRingSamples;
  for (size_t i = 0; i < count; ++i, at = (at + 1) % kRingSamples) fed_.push_back(ring_[at]);
  feeding_ = true;
  GiveFed();
}

void Listener::StopFeeding() {
  if (!feeding_) return;
  feeding_ = false;
  GiveFed();
}

void Listener::Reset() {
  feeding_ = false;
  fed_.clear();
  frame_.clear();
  ring_filled_ = 0;
  has_timestamp_ = false;
  kept_count_ = 0;
  soft_frames_ = 0;
  level_known_ = level_false_ = false;
  vad_->Reset();
  resampler_.Reset();
}

void Listener::Take(std::span<const int16_t> samples) {
  while (!samples.empty()) {
    const size_t count = std::min(kVoiceFrameSamples - frame_.size(), samples.size());
    frame_.insert(frame_.end(), samples.begin(),
                  samples.begin() + static_cast<std::ptrdiff_t>(count));
    samples = samples.subspan(count);
    if (frame_.size() == kVoiceFrameSamples) OnFrame();
  }
}

void Listener::OnFrame() {
  // Into the ring first: when the judgement starts the feeding, this frame belongs to the pre-roll.
  const bool fed = feeding_;
  std::copy(frame_.begin(), frame_.end(), ring_.begin() + static_cast<std::ptrdiff_t>(ring_next_));
  ring_next_ = (ring_next_ + kVoiceFrameSamples) % kRingSamples;
  ring_filled_ = std::min(ring_filled_ + kVoiceFrameSamples, kRingSamples);
  if (fed) fed_.insert(fed_.end(), frame_.begin(), frame_.end());
  if (sinks_.heard) sinks_.heard(frame_);
  const audio::VadFrame judged = vad_->Process(frame_);
  loudest_dbov_ = std::max(loudest_dbov_, judged.level_dbov);
  const int64_t quiet_us = judged.speech ? QuietUs() : 0;
  frame_.clear();
  if (fed_.size() >= kFeedSamples) GiveFed();
  sinks_.voice(judged.speech, quiet_us);
}

int64_t Listener::QuietUs() const {
  int64_t quiet_us = codec_delay_us_;
  for (size_t end = frame_.size(); end >= kPieceSamples; end -= kPieceSamples) {
    const auto piece = std::span(frame_).subspan(end - kPieceSamples, kPieceSamples);
    if (audio::LevelDbov(piece) > kNoSpeechDbov) break;
    quiet_us += kPieceUs;
  }
  return quiet_us;
}

void Listener::GiveFed() {
  if (fed_.empty()) return;
  sinks_.recogniser(audio::AsBytes(fed_));
  fed_.clear();
}

}  // namespace parley::agent
