#include "speech/pace.h"

#include <algorithm>
#include <vector>

namespace parley::speech {

void Pace::Learn(std::string_view key, absl::Duration took) {
  MutexLock lock(&mutex_);
  auto found = took_.find(key);
  if (found == took_.end()) found = took_.emplace(key, std::deque<absl::Duration>()).first;
  found->second.push_back(took);
  if (found->second.size() > kKept) found->second.pop_front();
}

absl::Duration Pace::Patience(std::string_view key, absl::Duration slack,
                              absl::Duration most) const {
  std::vector<absl::Duration> took;
  {
    MutexLock lock(&mutex_);
    const auto found = took_.find(key);
    if (found == took_.end() || found->second.size() < kEnough) return most;
    took.assign(found->second.begin(), found->second.end());
  }
  const auto decile = took.begin() + static_cast<std::ptrdiff_t>((took.size() - 1) * 9 / 10);
  std::nth_element(took.begin(), decile, took.end());
  return std::min(*decile + slack, most);
}

}  // namespace parley::speech
