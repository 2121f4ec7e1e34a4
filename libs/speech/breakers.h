#pragma once
// Circuit breakers: which engines are worth asking now.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"

namespace parley::speech {

// One breaker for each key (an engine, or an engine with its provider's address). Closed: everybody
// may ask. After `failures_to_open` failures in a row it opens: nobody asks for `cool_down`. Then
// one caller at a time may (half-open): success closes it, failure opens it for twice as long, at
// most `max_cool_down`.
// Thread-safe; never blocks.
class Breakers {
 public:
  struct Options {
    // Three: one lost connection is chance, three in a row are an outage; the calls they cost are
    // served by the next engine of their chain.
    int failures_to_open = 3;
    absl::Duration cool_down = absl::Seconds(5);
    absl::Duration max_cool_down = absl::Minutes(1);
    // A probe that nobody answered for is forgotten after this.
    absl::Duration probe_timeout = absl::Seconds(30);
  };
  enum class State { kClosed, kOpen, kHalfOpen };

  Breakers(Clock& clock, Options options);
  explicit Breakers(Clock& clock) : Breakers(clock, Options()) {}

  // True: ask it, and then Report() how it went.
  bool Allow(std::string_view key);
  // OK closes the breaker. Unavailable, DeadlineExceeded, Internal and Unknown are failures of the
  // engine; any other error (the request's own, or a full engine) says nothing of its health.
  void Report(std::string_view key, const absl::Status& status);

  State StateOf(std::string_view key) const;

  // For whoever carries health between processes. Durations count from now.
  struct Health {
    std::string key;
    bool down = false;
    absl::Duration wait;       // nobody asks for so long
    absl::Duration cool_down;  // that led to it
    absl::Duration probe;      // somebody is asking, for so long at most
  };
  // What changed here since the last call.
  std::vector<Health> TakeChanges();
  // They could not be said: they are told again, as they are then.
  void GiveBack(const std::vector<Health>& changes);
  // All that is down anywhere. What changed here and was not taken yet stands; else what is not
  // among them is well.
  void Adopt(const std::vector<Health>& board);

 private:
  struct Breaker {
    int failures = 0;  // in a row
    absl::Duration cool_down = absl::ZeroDuration();
    absl::Time open_until = absl::InfinitePast();
    absl::Time probe_until = absl::InfinitePast();  // somebody is asking
    bool open = false;
  };

  Clock& clock_;
  const Options options_;
  mutable Mutex mutex_;
  std::map<std::string, Breaker, std::less<>> breakers_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string, std::less<>> changed_ ABSL_GUARDED_BY(mutex_);  // not taken yet
};

}  // namespace parley::speech
