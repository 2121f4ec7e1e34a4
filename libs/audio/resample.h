#pragma once
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace parley::audio {

// Changes the rate of a stream, piece by piece. Low delay (1.5 ms at quality 3, 2.5 ms at 5).
// Belongs to one thread at a time; allocates nothing after construction.
class Resampler {
 public:
  // Rates 8,000 to 192,000 Hz; quality 0 to 10. Equal rates copy.
  //   InvalidArgument  out of range
  static absl::StatusOr<Resampler> Create(int from_hz, int to_hz, int quality = 4);

  // How many samples `in_samples` samples may become, at most.
  size_t MaxOutput(size_t in_samples) const;
  // Consumes all of `in`; `out` holds at least MaxOutput(in.size()). Returns how many samples it
  // wrote.
  size_t Process(std::span<const int16_t> in, std::span<int16_t> out);
  // Appends to `out`.
  void Append(std::span<const int16_t> in, std::vector<int16_t>& out);
  // Forgets the stream so far: the next samples have nothing to do with those before.
  void Reset();

 private:
  struct Free {
    void operator()(void* state) const;
  };
  Resampler(void* state, int from_hz, int to_hz)
      : state_(state), from_hz_(from_hz), to_hz_(to_hz) {}
  std::unique_ptr<void, Free> state_;  // null: equal rates
  int from_hz_;
  int to_hz_;
};

// A whole recording at once, aligned with the original and of its length.
absl::StatusOr<std::vector<int16_t>> Resample(std::span<const int16_t> samples, int from_hz,
                                              int to_hz);

}  // namespace parley::audio
