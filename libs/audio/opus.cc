#include "audio/opus.h"

#include <opus.h>

#include "base/status.h"

namespace parley::audio {
namespace {

::OpusEncoder* Enc(void* state) { return static_cast<::OpusEncoder*>(state); }
::OpusDecoder* Dec(void* state) { return static_cast<::OpusDecoder*>(state); }

}  // namespace

void OpusEncoder::Free::operator()(void* state) const { opus_encoder_destroy(Enc(state)); }
void OpusDecoder::Free::operator()(void* state) const { opus_decoder_destroy(Dec(state)); }

absl::StatusOr<OpusEncoder> OpusEncoder::Create(const OpusEncoderOptions& options) {
  if (options.bitrate_bps < 6'000 || options.bitrate_bps > 128'000) {
    return InvalidArgument("Opus bitrate {} is not within 6000 to 128000 bit/s",
                           options.bitrate_bps);
  }
  if (options.complexity < 0 || options.complexity > 10) {
    return InvalidArgument("Opus complexity {} is not within 0 to 10", options.complexity);
  }
  if (options.expected_loss_percent < 0 || options.expected_loss_percent > 100) {
    return InvalidArgument("Opus expected loss {} is not within 0 to 100 per cent",
                           options.expected_loss_percent);
  }
  if (options.channels != 1 && options.channels != 2) {
    return InvalidArgument("Opus of {} channels; there are 1 or 2", options.channels);
  }
  int error = OPUS_OK;
  const int application =
      options.low_delay ? OPUS_APPLICATION_RESTRICTED_LOWDELAY : OPUS_APPLICATION_VOIP;
  ::OpusEncoder* state =
      opus_encoder_create(options.rate_hz, options.channels, application, &error);
  if (error != OPUS_OK) {
    return InvalidArgument("Opus cannot be made from {} Hz: use 8000, 12000, 16000, 24000 or 48000",
                           options.rate_hz);
  }
  OpusEncoder encoder(state, options.rate_hz, options.channels);
  opus_encoder_ctl(state, OPUS_SET_BITRATE(options.bitrate_bps));
  opus_encoder_ctl(state, OPUS_SET_COMPLEXITY(options.complexity));
  opus_encoder_ctl(state, OPUS_SET_SIGNAL(OPUS_SIGNAL_VOICE));
  opus_encoder_ctl(state, OPUS_SET_INBAND_FEC(options.expected_loss_percent > 0 ? 1 : 0));
  opus_encoder_ctl(state, OPUS_SET_PACKET_LOSS_PERC(options.expected_loss_percent));
  return encoder;
}

absl::StatusOr<size_t> OpusEncoder::Encode(std::span<const int16_t> frame,
                                           std::span<uint8_t> packet) {
  if (frame.size() != frame_samples_ || packet.size() < kMaxPacketBytes) {
    return InvalidArgument(
        "an Opus frame has {} samples, not {}, and wants room for {} bytes, not {}", frame_samples_,
        frame.size(), kMaxPacketBytes, packet.size());
  }
  const opus_int32 bytes = opus_encode(Enc(state_.get()), frame.data(), rate_hz_ / 50,
                                       packet.data(), static_cast<opus_int32>(packet.size()));
  if (bytes < 0) return Internal("cannot encode Opus: {}", opus_strerror(bytes));
  return static_cast<size_t>(bytes);
}

void OpusEncoder::Reset() { opus_encoder_ctl(Enc(state_.get()), OPUS_RESET_STATE); }

int OpusEncoder::pre_skip() const {
  opus_int32 lookahead = 0;
  opus_encoder_ctl(Enc(state_.get()), OPUS_GET_LOOKAHEAD(&lookahead));
  return lookahead * (48'000 / rate_hz_);
}

absl::StatusOr<OpusDecoder> OpusDecoder::Create(int rate_hz) {
  int error = OPUS_OK;
  ::OpusDecoder* state = opus_decoder_create(rate_hz, 1, &error);
  if (error != OPUS_OK) {
    return InvalidArgument(
        "Opus cannot be decoded at {} Hz: use 8000, 12000, 16000, 24000 or 48000", rate_hz);
  }
  return OpusDecoder(state, rate_hz);
}

absl::StatusOr<size_t> OpusDecoder::Decode(std::string_view packet, std::span<int16_t> samples) {
  if (packet.empty()) return InvalidArgument("an Opus packet is empty");
  const int count = opus_decode(
      Dec(state_.get()), reinterpret_cast<const unsigned char*>(packet.data()),
      static_cast<opus_int32>(packet.size()), samples.data(), static_cast<int>(samples.size()), 0);
  if (count < 0) return InvalidArgument("not an Opus packet: {}", opus_strerror(count));
  return static_cast<size_t>(count);
}

absl::StatusOr<size_t> OpusDecoder::Recover(std::string_view next, std::span<int16_t> samples) {
  const int count = opus_decode(
      Dec(state_.get()), reinterpret_cast<const unsigned char*>(next.data()),
      static_cast<opus_int32>(next.size()), samples.data(), static_cast<int>(samples.size()), 1);
  if (next.empty() || count < 0) return InvalidArgument("nothing can be recovered of the packet");
  return static_cast<size_t>(count);
}

absl::StatusOr<size_t> OpusDecoder::Conceal(std::span<int16_t> samples) {
  const int count = opus_decode(Dec(state_.get()), nullptr, 0, samples.data(),
                                static_cast<int>(samples.size()), 0);
  if (count < 0) {
    return InvalidArgument(
        "{} samples cannot be concealed at {} Hz: want a multiple of 2.5 ms, at most 120 ms",
        samples.size(), rate_hz_);
  }
  return static_cast<size_t>(count);
}

}  // namespace parley::audio
