#include "webrtc/reception.h"

#include <algorithm>
#include <cstdlib>

namespace parley::webrtc {

void Reception::Count(uint32_t timestamp, int64_t now_us) {
  ++received_;
  const int64_t transit = now_us * clock_hz_ / 1'000'000 - timestamp;
  if (received_ > 1) {
    const auto difference = static_cast<int32_t>(transit - last_transit_);  // both wrap
    jitter_ += (std::abs(static_cast<double>(difference)) - jitter_) / 16;
  }
  last_transit_ = transit;
}

void Reception::OnSenderReport(const SenderReport& report, int64_t now_us) {
  last_sr_ = static_cast<uint32_t>(report.ntp >> 16);
  last_sr_us_ = now_us;
}

ReportBlock Reception::Report(int64_t expected, uint32_t highest_sequence, int64_t now_us) {
  ReportBlock block;
  block.ssrc = ssrc_;
  block.lost = static_cast<int32_t>(expected - received_);
  const int64_t interval = expected - expected_before_;
  const int64_t lost = interval - (received_ - received_before_);
  if (interval > 0 && lost > 0) {
    block.fraction_lost = static_cast<uint8_t>(std::min<int64_t>(lost * 256 / interval, 255));
  }
  expected_before_ = expected;
  received_before_ = received_;
  block.highest_sequence = highest_sequence;
  block.jitter = static_cast<uint32_t>(jitter_);
  block.last_sr = last_sr_;
  if (last_sr_ != 0) {
    block.delay_since_sr = static_cast<uint32_t>((now_us - last_sr_us_) * 65'536 / 1'000'000);
  }
  return block;
}

}  // namespace parley::webrtc
