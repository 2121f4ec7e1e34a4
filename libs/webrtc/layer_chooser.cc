#include "webrtc/layer_chooser.h"

#include <algorithm>
#include <utility>

namespace parley::webrtc {
namespace {

// An estimate this far below what is sent says that it does not get through.
constexpr int64_t kEnoughPercent = 80;
constexpr int64_t kFallsPercent = 95;

}  // namespace

void LayerChooser::OnLoss(uint8_t fraction_lost, int64_t now_us) {
  if (fraction_lost < kLossy || now_us - changed_us_ < kSettleUs) return;
  bad_ = true;
  bad_us_ = now_us;
}

void LayerChooser::OnEstimate(int64_t bps, int64_t now_us) {
  // It follows what is sent: after a change to a higher layer it is low, and rises.
  const bool falls = bps * 100 < estimated_before_ * kFallsPercent;
  estimated_before_ = bps;
  if (falls && now_us - changed_us_ >= kSettleUs) estimate_bps_ = bps;
}

void LayerChooser::GoDown(const Rates& rates, int64_t now_us) {
  if (went_up_us_ != 0 && now_us - went_up_us_ < kTrialUs) {
    wait_us_ = std::min(wait_us_ * 2, kLongestWaitUs);
  }
  went_up_us_ = 0;
  for (int lower = layer_ - 1; lower >= 0; --lower) {
    if (rates[static_cast<size_t>(lower)] == 0) continue;
    layer_ = lower;
    changed_us_ = now_us;
    return;
  }
}

int LayerChooser::Choose(const Rates& rates, int64_t now_us) {
  const auto live = [&](int layer) { return rates[static_cast<size_t>(layer)] > 0; };
  int lowest = 0;
  while (lowest < static_cast<int>(kLayers) && !live(lowest)) ++lowest;
  if (wish_ < 0 || lowest == static_cast<int>(kLayers)) return layer_ = -1;
  if (layer_ < 0) {
    layer_ = lowest;
    changed_us_ = bad_us_ = now_us;
  } else if (!live(layer_) || layer_ > std::max(wish_, lowest)) {
    const int before = layer_;
    layer_ = lowest;  // what is there and wanted: the highest below
    for (int lower = lowest; lower < static_cast<int>(kLayers) && lower <= std::min(wish_, before);
         ++lower) {
      if (live(lower)) layer_ = lower;
    }
    if (layer_ != before) changed_us_ = now_us;
  }
  const int64_t sent = rates[static_cast<size_t>(layer_)];
  if (estimate_bps_ > 0 && estimate_bps_ * 100 < sent * kEnoughPercent) {
    bad_ = true;
    bad_us_ = now_us;
  }
  estimate_bps_ = 0;  // each one counts once
  if (std::exchange(bad_, false)) {
    GoDown(rates, now_us);
    return layer_;
  }
  if (went_up_us_ != 0 && now_us - went_up_us_ >= kTrialUs) {
    went_up_us_ = 0;
    wait_us_ = kFirstWaitUs;
  }
  if (now_us - changed_us_ < wait_us_ || now_us - bad_us_ < wait_us_) return layer_;
  for (int higher = layer_ + 1; higher <= wish_ && higher < static_cast<int>(kLayers); ++higher) {
    if (!live(higher)) continue;
    layer_ = higher;
    changed_us_ = went_up_us_ = now_us;
    break;
  }
  return layer_;
}

}  // namespace parley::webrtc
