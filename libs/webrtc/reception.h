#pragma once
#include <cstdint>

#include "webrtc/rtp.h"

namespace parley::webrtc {

// What the receiver of one stream counts for its reports to the sender (RFC 3550, 6.4.1 and A.8).
// Not thread-safe; allocates nothing.
class Reception {
 public:
  // `clock_hz`: of the stream's timestamps.
  Reception(uint32_t ssrc, int64_t clock_hz) : ssrc_(ssrc), clock_hz_(clock_hz) {}

  // A packet that had not come before.
  void Count(uint32_t timestamp, int64_t now_us);
  void OnSenderReport(const SenderReport& report, int64_t now_us);
  // `expected`: packets sent since the beginning, as the numbers of those that came say. Begins the
  // next interval.
  ReportBlock Report(int64_t expected, uint32_t highest_sequence, int64_t now_us);
  int64_t received() const { return received_; }

 private:
  const uint32_t ssrc_;
  const int64_t clock_hz_;
  int64_t received_ = 0;
  int64_t expected_before_ = 0;
  int64_t received_before_ = 0;
  double jitter_ = 0;  // in units of the clock
  int64_t last_transit_ = 0;
  uint32_t last_sr_ = 0;
  int64_t last_sr_us_ = 0;
};

}  // namespace parley::webrtc
