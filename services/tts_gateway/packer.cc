#include "tts_gateway/packer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "audio/level.h"
#include "audio/pcm.h"
#include "base/clock.h"
#include "base/status.h"

namespace parley {
namespace {

constexpr int kFirstMs = 20;
constexpr int kLaterMs = 60;
constexpr int kMostMs = 400;

}  // namespace

absl::StatusOr<AudioPacker> AudioPacker::Create(speech::v1::AudioEncoding encoding, int rate_hz,
                                                int engine_rate_hz, bool ready_opus) {
  if (rate_hz == 0) rate_hz = audio::kRoomRateHz;
  if (rate_hz < 8000 || rate_hz > 48000)
    return InvalidArgument("sample_rate_hz {} is out of range: 8000 to 48000", rate_hz);
  std::optional<audio::OpusEncoder> encoder;
  switch (encoding) {
    case speech::v1::AUDIO_ENCODING_UNSPECIFIED:
    case speech::v1::AUDIO_ENCODING_PCM16:
      break;
    case speech::v1::AUDIO_ENCODING_OPUS: {
      if (rate_hz != audio::kRoomRateHz)
        return InvalidArgument("Opus is made at 48000 Hz, not at {}", rate_hz);
      PARLEY_ASSIGN_OR_RETURN(audio::OpusEncoder made, audio::OpusEncoder::Create());
      encoder.emplace(std::move(made));
      break;
    }
    default:
      return InvalidArgument("encoding {} is not known: PCM16 or OPUS", static_cast<int>(encoding));
  }
  PARLEY_ASSIGN_OR_RETURN(audio::Resampler resampler,
                          audio::Resampler::Create(engine_rate_hz, rate_hz));
  return AudioPacker(std::move(resampler), std::move(encoder), rate_hz, engine_rate_hz,
                     ready_opus && encoding != speech::v1::AUDIO_ENCODING_OPUS);
}

int AudioPacker::MsSoFar() const {
  return static_cast<int>(total_samples_ * 1000 / static_cast<size_t>(rate_hz_));
}

// How much makes a message. Whoever has twice as much still to play can wait for it.
size_t AudioPacker::Enough() const {
  int64_t ms = kFirstMs;
  if (sent_) {
    const auto sent_ms = static_cast<int64_t>((total_samples_ - pending_.size()) * 1000 /
                                              static_cast<size_t>(rate_hz_));
    const int64_t played_ms = (Clock::Real().MonotonicMicros() - first_us_) / 1000;
    ms = std::clamp<int64_t>((sent_ms - played_ms) / 2, kLaterMs, kMostMs);
  }
  return static_cast<size_t>(rate_hz_ * ms / 1000);
}

void AudioPacker::Take(size_t samples, std::vector<speech::v1::SynthesizedAudio>& out) {
  const std::span<const int16_t> piece(pending_.data(), samples);
  std::string data;
  if (encoder_.has_value()) {
    std::array<uint8_t, audio::OpusEncoder::kMaxPacketBytes> packet;
    const auto bytes = encoder_->Encode(piece, packet);
    // The size of a frame is ours, so this cannot fail but for a broken library.
    if (bytes.ok()) data.assign(reinterpret_cast<const char*>(packet.data()), *bytes);
  } else {
    data = audio::AsBytes(piece);
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(samples));
  Emit(std::move(data), out);
}

void AudioPacker::Emit(std::string data, std::vector<speech::v1::SynthesizedAudio>& out) {
  speech::v1::SynthesizedAudio message;
  message.set_data(std::move(data));
  Emit(std::move(message), out);
}

void AudioPacker::Emit(speech::v1::SynthesizedAudio message,
                       std::vector<speech::v1::SynthesizedAudio>& out) {
  for (speech::WordTime& word : words_) {
    speech::v1::WordTiming* timing = message.add_words();
    timing->set_word(std::move(word.word));
    timing->set_start_ms(word.start_ms);
    timing->set_end_ms(word.end_ms);
  }
  words_.clear();
  if (!std::exchange(sent_, true)) first_us_ = Clock::Real().MonotonicMicros();
  out.push_back(std::move(message));
}

std::vector<speech::v1::SynthesizedAudio> AudioPacker::Add(
    std::span<const int16_t> samples, const std::vector<speech::WordTime>& words) {
  std::vector<speech::v1::SynthesizedAudio> out;
  const size_t before = pending_.size();
  resampler_.Append(samples, pending_);
  total_samples_ += pending_.size() - before;
  AddWords(words);
  if (encoder_.has_value()) {
    while (pending_.size() >= audio::kRoomFrameSamples) Take(audio::kRoomFrameSamples, out);
    return out;
  }
  while (pending_.size() >= Enough()) {
    const auto most = static_cast<size_t>(rate_hz_) * (sent_ ? kMostMs : kLaterMs) / 1000;
    Take(std::min(pending_.size(), most), out);
  }
  return out;
}

void AudioPacker::AddWords(const std::vector<speech::WordTime>& words) {
  for (speech::WordTime word : words) {
    word.start_ms += sentence_start_ms_;
    word.end_ms += sentence_start_ms_;
    words_.push_back(std::move(word));
  }
}

std::vector<speech::v1::SynthesizedAudio> AudioPacker::AddReady(const speech::Phrase& phrase) {
  std::vector<speech::v1::SynthesizedAudio> out;
  if (!pending_.empty()) Take(pending_.size(), out);
  AddWords(phrase.words);
  const auto frame = static_cast<size_t>(phrase.sample_rate_hz / 50);
  const auto together = static_cast<size_t>(kMostMs / 20);
  for (size_t i = 0; i < phrase.opus.size();) {
    speech::v1::SynthesizedAudio message;
    // The first of the segment as short as may be.
    const size_t end = std::min(phrase.opus.size(), i + (sent_ ? together : 1));
    for (; i < end; ++i) {
      message.add_packets(phrase.opus[i]);
      const size_t from = std::min(i * frame, phrase.samples.size());
      const std::span<const int16_t> samples = std::span(phrase.samples).subspan(from);
      message.mutable_levels()->push_back(
          static_cast<char>(audio::Level(samples.first(std::min(frame, samples.size())))));
    }
    Emit(std::move(message), out);
  }
  total_samples_ += phrase.opus.size() * static_cast<size_t>(rate_hz_) / 50;
  return out;
}

std::vector<speech::v1::SynthesizedAudio> AudioPacker::AddPhrase(const speech::Phrase& phrase) {
  if (ready_opus_ && !phrase.opus.empty()) return AddReady(phrase);
  if (!encoder_.has_value() || phrase.opus.empty()) {
    if (phrase.sample_rate_hz == engine_rate_hz_) return Add(phrase.samples, phrase.words);
    const auto samples = audio::Resample(phrase.samples, phrase.sample_rate_hz, engine_rate_hz_);
    return Add(samples.ok() ? *samples : std::vector<int16_t>(), phrase.words);
  }
  std::vector<speech::v1::SynthesizedAudio> out;
  if (!pending_.empty()) {  // packets begin where packets begin
    total_samples_ += audio::kRoomFrameSamples - pending_.size();
    pending_.resize(audio::kRoomFrameSamples);
    Take(pending_.size(), out);
    EndSentence();
  }
  AddWords(phrase.words);
  total_samples_ += phrase.opus.size() * audio::kRoomFrameSamples;
  for (const std::string& packet : phrase.opus) Emit(packet, out);
  return out;
}

std::vector<speech::v1::SynthesizedAudio> AudioPacker::EndSegment() {
  std::vector<speech::v1::SynthesizedAudio> out;
  if (encoder_.has_value() && !pending_.empty()) pending_.resize(audio::kRoomFrameSamples);
  if (!pending_.empty()) Take(pending_.size(), out);
  resampler_.Reset();
  words_.clear();
  total_samples_ = 0;
  sent_ = false;
  sentence_start_ms_ = 0;
  return out;
}

}  // namespace parley
