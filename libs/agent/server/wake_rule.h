#pragma once
#include <cstdint>
#include <set>

namespace parley::agent {

// How many frames of audio a job wakes up for. Audio that nobody can hear waits for more of its
// kind: softer than speech ever is, after a second of nothing louder, or once the job has closed
// the utterance: silence tells it nothing more then. What a caller says goes on to the job in
// fives, once it is clear that somebody speaks: its frames know when they came. So do pauses in it,
// for as long as they are shorter than any that the job has taken for an end. One thread; `now_us`
// of one clock that never goes back.
class WakeRule {
 public:
  // One more frame of a track, `level` in -dBov (0: the sender knows none). Whether it may wait for
  // the next; one that may not takes along what waits.
  bool MayWait(uint32_t track, uint32_t level, int64_t now_us);
  // By the job's own judgement.
  void UtteranceOver(int64_t now_us);
  // The caller stopped in the middle: nothing follows that would take along what was said last, so
  // it is to go now. True once.
  bool Stranded(int64_t now_us);

 private:
  std::set<uint32_t> levels_of_;  // tracks whose sender says how loud it is
  int64_t loud_us_ = 0;           // the last frame that can be heard
  int loud_frames_ = 0;           // since the caller last fell silent
  bool utterance_over_ = false;
  int64_t shortest_end_us_ = 0;   // from the last loud frame to UtteranceOver(); 0: not known yet
  int64_t waiting_since_us_ = 0;  // the first frame that waits
  int waiting_frames_ = 0;
};

}  // namespace parley::agent
