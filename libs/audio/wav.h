#pragma once
#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace parley::audio {

struct Wav {
  int rate_hz = 0;
  int channels = 0;
  std::vector<int16_t> samples;  // interleaved; 8, 24 and 32 bits are brought to 16
};

// Reads PCM WAV whole; blocks on the disk. At most 1 GiB.
//   NotFound          there is no such file
//   InvalidArgument   not WAV, not PCM, empty or cut short; the message says which
absl::StatusOr<Wav> ReadWav(const std::string& path);
// The same from memory.
absl::StatusOr<Wav> ParseWav(std::string_view bytes);
// One channel, brought to `rate_hz`: what callers and recognisers want.
absl::StatusOr<std::vector<int16_t>> ReadSpeech(const std::string& path, int rate_hz);

// What goes before `bytes` bytes of 16-bit mono PCM to make them a WAV file.
std::string WavHeader(size_t bytes, int rate_hz);

// Writes 16-bit PCM. Blocks on the disk.
//   InvalidArgument   the path cannot be written
absl::Status WriteWav(const std::string& path, const Wav& wav);
// Left and right of one recording; the shorter one ends in silence.
absl::Status WriteStereoWav(const std::string& path, int rate_hz, std::span<const int16_t> left,
                            std::span<const int16_t> right);

}  // namespace parley::audio
