#pragma once
// Which of a video track's layers a listener gets: the highest that its network carries, as far as
// its reports tell. There is no pacing here and no padding to probe with, so a higher layer is
// tried, and given up again when packets are lost. Pure; one thread.
#include <array>
#include <cstddef>
#include <cstdint>

namespace parley::webrtc {

class LayerChooser {
 public:
  static constexpr size_t kLayers = 3;
  static constexpr uint8_t kLossy = 26;                 // of 256: about 10 %
  static constexpr int64_t kFirstWaitUs = 2'000'000;    // before a higher layer is tried
  static constexpr int64_t kLongestWaitUs = 6'000'000;  // after tries in vain
  static constexpr int64_t kTrialUs = 5'000'000;        // a loss within it means it was in vain
  static constexpr int64_t kSettleUs =
      1'000'000;  // reports after a change are about what was before

  using Rates = std::array<int64_t, kLayers>;  // bits a second; 0 = the layer is not sent now

  // The highest layer that the listener wants; -1: none.
  void SetWish(int highest) { wish_ = highest; }
  // Its report: of the packets sent, so many of 256 were lost.
  void OnLoss(uint8_t fraction_lost, int64_t now_us);
  // Its estimate of what its network carries, in bits a second. Counts when it falls.
  void OnEstimate(int64_t bps, int64_t now_us);
  // -1: none.
  int Choose(const Rates& rates, int64_t now_us);

 private:
  void GoDown(const Rates& rates, int64_t now_us);

  int wish_ = kLayers - 1;
  int layer_ = -1;
  int64_t changed_us_ = 0;
  int64_t bad_us_ = 0;      // when something was wrong for the last time
  int64_t went_up_us_ = 0;  // 0: it did not, or that is long ago
  int64_t wait_us_ = kFirstWaitUs;
  int64_t estimate_bps_ = 0;  // that fell; 0: it did not
  int64_t estimated_before_ = 0;
  bool bad_ = false;
};

}  // namespace parley::webrtc
