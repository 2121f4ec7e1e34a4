#pragma once
// What is heard beside the agent's voice, on a track of its own: an ambience while somebody is
// there, and a sound while the agent thinks. The receiver mixes, so that the voice is never coded
// anew, paused or cut for it.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "agent/agent.h"
#include "audio/opus.h"
#include "audio/sounds.h"
#include "event/loop.h"

namespace parley::agent {

// Loop thread only. Costs nothing while neither sound is wanted; else about 0.2 % of a core.
class BackgroundPlayer {
 public:
  struct Frame {
    std::string_view packet;  // 20 ms of Opus
    uint32_t timestamp;       // on the 48 kHz media clock
    int64_t due_us;           // by the loop's clock; 0: now
    bool more;                // another follows before anything else happens
  };
  using Sink = std::function<void(const Frame&)>;
  // `ahead`: how long before its time a frame may be handed over.
  //   InvalidArgument  as Check
  static absl::StatusOr<std::unique_ptr<BackgroundPlayer>> Create(event::Loop& loop,
                                                                  const Background& sounds,
                                                                  Sink sink, absl::Duration ahead);
  // InvalidArgument: a name that no sound has, a loop of over a minute, a volume outside 0 to 4.
  static absl::Status Check(const Background& sounds);

  // Which of them are wanted from now on. What was handed over is still heard.
  void Play(bool ambient, bool thinking);

 private:
  static constexpr size_t kFrameSamples = audio::kSoundRateHz / 50;
  struct Source {
    std::unique_ptr<audio::Sound> sound;  // null: there is none
    float volume = 1;
    bool wanted = false;
    float gain = 0;  // on its way to what is wanted
    bool sounds() const { return sound != nullptr && (wanted || gain > 0); }
  };
  BackgroundPlayer(event::Loop& loop, audio::OpusEncoder encoder, Sink sink, absl::Duration ahead);
  void Run();
  void MakeFrame(int64_t now_us);

  event::Loop& loop_;
  audio::OpusEncoder encoder_;
  const Sink sink_;
  const int64_t ahead_us_;
  std::array<Source, 2> sources_;  // ambient, thinking
  event::Timer timer_;
  bool running_ = false;
  int64_t next_due_us_ = 0;
  uint32_t timestamp_ = 0;
};

}  // namespace parley::agent
