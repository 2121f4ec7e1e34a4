#pragma once
#include <absl/time/time.h>

#include <cstdint>

namespace parley {

// Where time comes from. Everything that waits or stamps takes one, so that tests can own time.
// Safe for concurrent use.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;  // wall clock: for people and records
  virtual int64_t MonotonicMicros()
      const = 0;  // CLOCK_MONOTONIC: for intervals; the same in all processes of a host

  static Clock& Real();  // never destroyed
};

}  // namespace parley
