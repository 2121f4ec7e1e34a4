#pragma once
#include <absl/time/time.h>

#include <deque>
#include <map>
#include <string>
#include <string_view>

#include "base/mutex.h"

namespace parley::speech {

// How long engines usually take to answer, learned from what they did. It tells how long to wait
// for one before another is asked: a fixed deadline is either too long for a quick engine that is
// gone or too short for a slow one in good health.
// Thread-safe; never blocks.
class Pace {
 public:
  // Of the last kKept answers, a tenth may be late without being waited for: few enough to be
  // forgotten within minutes, enough that one bad answer changes nothing.
  static constexpr size_t kKept = 32;
  // Before that many answers are known, nothing is.
  static constexpr size_t kEnough = 8;

  // An engine (or an engine with its model) answered after this.
  void Learn(std::string_view key, absl::Duration took);
  // It was given up after `waited`: counts as an answer after twice that, so that an engine which
  // has become slow for good is waited for again after a few of them.
  void LearnLate(std::string_view key, absl::Duration waited) { Learn(key, 2 * waited); }

  // The ninth decile of what it took plus `slack`; `most` while too little is known, and never
  // more.
  absl::Duration Patience(std::string_view key, absl::Duration slack, absl::Duration most) const;

 private:
  mutable Mutex mutex_;
  std::map<std::string, std::deque<absl::Duration>, std::less<>> took_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::speech
