#include "webrtc/link.h"

#include <algorithm>

namespace parley::webrtc {
namespace {

constexpr double kBest = 93.2;          // rating without any flaw
constexpr double kEncodingMs = 40;      // framing, look-ahead, playout
constexpr double kNoticedMs = 177.3;    // delay beyond it disturbs a conversation
constexpr double kLossRobustness = 20;  // per cent at which half of the rating is lost

}  // namespace

float MeanOpinion(const LinkFigures& figures) {
  const double delay_ms = kEncodingMs + absl::ToDoubleMilliseconds(figures.round_trip) / 2 +
                          2 * absl::ToDoubleMilliseconds(figures.jitter);
  const double loss = std::clamp(figures.loss, 0.0, 1.0) * 100;
  const double rating =
      std::clamp(kBest - 0.024 * delay_ms - 0.11 * std::max(0.0, delay_ms - kNoticedMs) -
                     95 * loss / (loss + kLossRobustness),
                 0.0, 100.0);
  const double opinion = 1 + 0.035 * rating + 7e-6 * rating * (rating - 60) * (100 - rating);
  return static_cast<float>(std::max(1.0, opinion));
}

}  // namespace parley::webrtc
