#include "audio/resample.h"

#include <speex/speex_resampler.h>

#include <algorithm>

#include "base/check.h"
#include "base/status.h"

namespace parley::audio {
namespace {

SpeexResamplerState* State(void* state) { return static_cast<SpeexResamplerState*>(state); }

}  // namespace

void Resampler::Free::operator()(void* state) const { speex_resampler_destroy(State(state)); }

absl::StatusOr<Resampler> Resampler::Create(int from_hz, int to_hz, int quality) {
  for (const int rate : {from_hz, to_hz}) {
    if (rate < 8'000 || rate > 192'000) {
      return InvalidArgument("sample rate {} Hz is not within 8000 to 192000", rate);
    }
  }
  if (quality < 0 || quality > 10) {
    return InvalidArgument("resampler quality {} is not within 0 to 10", quality);
  }
  if (from_hz == to_hz) return Resampler(nullptr, from_hz, to_hz);
  int error = RESAMPLER_ERR_SUCCESS;
  Resampler resampler(speex_resampler_init(1, static_cast<spx_uint32_t>(from_hz),
                                           static_cast<spx_uint32_t>(to_hz), quality, &error),
                      from_hz, to_hz);
  if (error != RESAMPLER_ERR_SUCCESS) {
    return Internal("cannot make a resampler: {}", speex_resampler_strerror(error));
  }
  // Start with the first sample, not with the filter's own silence.
  speex_resampler_skip_zeros(State(resampler.state_.get()));
  return resampler;
}

size_t Resampler::MaxOutput(size_t in_samples) const {
  if (state_ == nullptr) return in_samples;
  // The filter holds a few samples back and gives them with a later piece.
  constexpr size_t kHeldBack = 64;
  return (in_samples + kHeldBack) * static_cast<size_t>(to_hz_) / static_cast<size_t>(from_hz_) + 1;
}

size_t Resampler::Process(std::span<const int16_t> in, std::span<int16_t> out) {
  if (state_ == nullptr) {
    PARLEY_CHECK(out.size() >= in.size());
    std::copy(in.begin(), in.end(), out.begin());
    return in.size();
  }
  size_t written = 0;
  while (!in.empty()) {
    auto taken = static_cast<spx_uint32_t>(in.size());
    auto made = static_cast<spx_uint32_t>(out.size() - written);
    PARLEY_CHECK(made > 0);
    speex_resampler_process_int(State(state_.get()), 0, in.data(), &taken, out.data() + written,
                                &made);
    PARLEY_CHECK(taken > 0 || made > 0);
    in = in.subspan(taken);
    written += made;
  }
  return written;
}

void Resampler::Append(std::span<const int16_t> in, std::vector<int16_t>& out) {
  const size_t old = out.size();
  out.resize(old + MaxOutput(in.size()));
  out.resize(old + Process(in, std::span(out).subspan(old)));
}

void Resampler::Reset() {
  if (state_ == nullptr) return;
  speex_resampler_reset_mem(State(state_.get()));
  speex_resampler_skip_zeros(State(state_.get()));
}

absl::StatusOr<std::vector<int16_t>> Resample(std::span<const int16_t> samples, int from_hz,
                                              int to_hz) {
  constexpr int kFileQuality = 8;
  PARLEY_ASSIGN_OR_RETURN(Resampler resampler, Resampler::Create(from_hz, to_hz, kFileQuality));
  const size_t wanted = samples.size() * static_cast<size_t>(to_hz) / static_cast<size_t>(from_hz);
  std::vector<int16_t> out;
  resampler.Append(samples, out);
  // Silence pushes the rest through the filter.
  const std::vector<int16_t> silence(static_cast<size_t>(from_hz) / 50);
  while (out.size() < wanted) resampler.Append(silence, out);
  out.resize(wanted);
  return out;
}

}  // namespace parley::audio
