#pragma once
#include <bitset>
#include <cstddef>
#include <cstdint>

#include "session/types.h"

namespace parley::session {

// Makes speech with a beginning and an end out of decisions frame by frame. Frames are 20 ms; times
// are those of their ends, in microseconds.
class SpeechGate {
 public:
  static constexpr int64_t kFrameUs = 20'000;
  enum class Edge { kNone, kStarted, kStopped };

  explicit SpeechGate(const Options& options);

  // `quiet_us`: the speech in this frame was over so long before `now_us`.
  Edge Add(bool speech, int64_t now_us, int64_t quiet_us = 0);
  // Ends speech when frames stay away (muted, lost): kStopped or kNone.
  Edge Expire(int64_t now_us);
  // When to call Expire; INT64_MAX while nobody speaks.
  int64_t expiry_us() const;
  void Reset();
  // Somebody else judges: speech has begun; it is so at `now_us`, whatever frames say; and it has
  // ended, at `end_us`.
  void Hold(int64_t now_us);
  void Touch(int64_t now_us) { last_speech_us_ = now_us; }
  void Release(int64_t end_us);
  bool held() const { return speaking_ && held_; }
  // Nobody speaks, but the last frames may be the beginning of it. Until when that counts; 0: it is
  // quiet.
  int64_t starting_until_us() const;

  bool speaking() const { return speaking_; }
  int64_t start_us() const { return start_us_; }  // when the current or last speech began
  int64_t last_speech_us() const { return last_speech_us_; }  // end of its last frame of speech

 private:
  static constexpr size_t kWindowFrames = 10;

  const size_t needed_frames_;
  const int64_t min_silence_us_;
  std::bitset<kWindowFrames> window_;
  bool speaking_ = false;
  bool held_ = false;
  int64_t start_us_ = 0;
  int64_t last_speech_us_ = 0;
  int64_t last_frame_us_ = 0;
};

}  // namespace parley::session
