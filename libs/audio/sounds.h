#pragma once
// Sounds for the background of a call, made sample by sample rather than recorded: no files,
// nobody's copyright, never the same for long.
#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace parley::audio {

inline constexpr int kSoundRateHz = 24'000;

// One thread at a time. Allocates nothing after construction.
class Sound {
 public:
  virtual ~Sound() = default;
  // The next sample at kSoundRateHz, about -1 to 1.
  virtual float Next() = 0;
};

// room: the air of a quiet room; office: that with people and keyboards far away; rain; keyboard:
// somebody types close by; pulse: two soft notes every few seconds.
inline constexpr std::array<std::string_view, 5> kSoundNames = {"room", "office", "rain",
                                                                "keyboard", "pulse"};

// The same seed makes the same sound. Null: no sound has this name.
std::unique_ptr<Sound> MakeSound(std::string_view name, uint32_t seed);
// Round and round; silence where there are no samples.
std::unique_ptr<Sound> LoopOf(std::vector<int16_t> samples);

}  // namespace parley::audio
