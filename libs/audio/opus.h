#pragma once
// Opus as rooms carry it: mono, 48 kHz, one packet of 20 ms a frame. Objects belong to one thread
// at a time; nothing allocates after construction.
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace parley::audio {

struct OpusEncoderOptions {
  int rate_hz = 48'000;      // of the samples: 8,000, 12,000, 16,000, 24,000 or 48,000
  int channels = 1;          // or 2: samples of left and right take turns
  int bitrate_bps = 24'000;  // 6,000 to 128,000
  int complexity = 5;        // 0 (81 µs a frame) to 10 (284 µs a frame)
  // The codec's transform alone, without its speech model: a third of the time (24 µs a frame at
  // complexity 0) and 4 ms less delay. Speech wants 40,000 bit/s and more for the same quality.
  bool low_delay = false;
  // Above 0 (to 100): each packet carries the one before it once more, coarsely (in-band FEC), for
  // whoever loses about so many of 100. Costs quality at the same bitrate; not with `low_delay`.
  int expected_loss_percent = 0;
};

class OpusEncoder {
 public:
  // Room enough for any packet of 20 ms at the bitrates above.
  static constexpr size_t kMaxPacketBytes = 1276;

  //   InvalidArgument  an option is out of range
  static absl::StatusOr<OpusEncoder> Create(const OpusEncoderOptions& options = {});

  // Encodes exactly 20 ms of samples (of each channel). Returns how many bytes of `packet` (at
  // least kMaxPacketBytes) it used.
  //   InvalidArgument  a span has the wrong size
  absl::StatusOr<size_t> Encode(std::span<const int16_t> frame, std::span<uint8_t> packet);
  void Reset();
  // What a decoder puts before the first sample, at 48 kHz.
  int pre_skip() const;

 private:
  struct Free {
    void operator()(void* state) const;
  };
  OpusEncoder(void* state, int rate_hz, int channels)
      : state_(state),
        rate_hz_(rate_hz),
        frame_samples_(static_cast<size_t>(rate_hz / 50 * channels)) {}
  std::unique_ptr<void, Free> state_;
  int rate_hz_;
  size_t frame_samples_;
};

class OpusDecoder {
 public:
  // The longest packet that Opus allows is 120 ms.
  static constexpr size_t MaxSamples(int rate_hz) {
    return static_cast<size_t>(rate_hz) * 120 / 1000;
  }

  // `rate_hz` of the samples wanted: 8,000, 12,000, 16,000, 24,000 or 48,000. Stereo packets come
  // out as mono.
  //   InvalidArgument  any other rate
  static absl::StatusOr<OpusDecoder> Create(int rate_hz);

  // Decodes one packet. `samples` holds at least MaxSamples(rate). Returns how many samples there
  // are.
  //   InvalidArgument  not an Opus packet; the decoder stays usable
  absl::StatusOr<size_t> Decode(std::string_view packet, std::span<int16_t> samples);
  // The last `samples.size()` samples (a multiple of 2.5 ms) before `next`, out of the copy that
  // the sender may have put into it (in-band FEC); made up, where it did not.
  //   InvalidArgument  not an Opus packet, or the span has the wrong size
  absl::StatusOr<size_t> Recover(std::string_view next, std::span<int16_t> samples);
  // Makes up `samples.size()` samples (a multiple of 2.5 ms) for audio that was lost.
  //   InvalidArgument  the span has the wrong size
  absl::StatusOr<size_t> Conceal(std::span<int16_t> samples);
  int rate_hz() const { return rate_hz_; }

 private:
  struct Free {
    void operator()(void* state) const;
  };
  OpusDecoder(void* state, int rate_hz) : state_(state), rate_hz_(rate_hz) {}
  std::unique_ptr<void, Free> state_;
  int rate_hz_;
};

}  // namespace parley::audio
