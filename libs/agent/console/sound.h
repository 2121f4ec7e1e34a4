#pragma once
// What the console hears and plays, 20 ms at a time: WAV files, or a microphone and a loudspeaker
// through ALSA's own programs, arecord and aplay.
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "agent/console/child.h"

namespace parley::agent {

// One thread. 48 kHz, mono.
class Sound {
 public:
  static constexpr size_t kFrameSamples = 960;
  using Frame = std::array<int16_t, kFrameSamples>;

  struct Options {
    std::string microphone;   // an ALSA device; empty: none
    std::string loudspeaker;  // likewise
    bool record = false;      // keeps both sides for Save()
  };
  static absl::StatusOr<std::unique_ptr<Sound>> Open(const Options& options);

  // Speaks these samples next, over the microphone. Silence comes after the last of them.
  void Speak(std::vector<int16_t> samples);
  bool speaking() const { return spoken_at_ < speech_.size(); }
  // What the agent says.
  void Play(std::span<const int16_t> samples);

  // 20 ms have passed: plays the next of what the agent said, and gives what is to be heard of the
  // person. Call at that pace.
  //   Unavailable  the microphone or the loudspeaker is gone
  absl::Status Tick(Frame& person);
  // How loud they are, -127 to 0 dBov, of the last frame.
  float person_dbov() const { return person_dbov_; }
  float agent_dbov() const { return agent_dbov_; }

  // Both sides as one recording, the person left. Blocks on the disk.
  absl::Status Save(const std::string& path) const;

 private:
  Sound() = default;
  absl::Status ReadMicrophone(Frame& frame);
  absl::Status PlayFrame(const Frame& frame);

  std::unique_ptr<Child> microphone_;
  std::unique_ptr<Child> loudspeaker_;
  std::string heard_;     // bytes of the microphone, not a whole frame yet
  std::string unplayed_;  // bytes that the loudspeaker had no room for
  std::vector<int16_t> speech_;
  size_t spoken_at_ = 0;
  std::deque<int16_t> agent_;
  bool record_ = false;
  std::vector<int16_t> person_side_;
  std::vector<int16_t> agent_side_;
  float person_dbov_ = -127;
  float agent_dbov_ = -127;
};

}  // namespace parley::agent
