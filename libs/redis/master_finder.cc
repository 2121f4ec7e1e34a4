#include "redis/master_finder.h"

#include <algorithm>

#include "base/clock.h"
#include "base/status.h"
#include "redis/connection.h"

namespace parley::redis {
namespace {

constexpr absl::Duration kAskTimeout = absl::Milliseconds(150);
constexpr int64_t kAskAgainUs = 1'000'000;
constexpr int64_t kFailureUs = 100'000;  // how long a failure answers for all who wait

}  // namespace

MasterFinder::MasterFinder(Config config) : config_(std::move(config)) {}

absl::StatusOr<MasterFinder::Master> MasterFinder::Find() {
  if (!follows_sentinels()) return Master{config_.address, 1};
  MutexLock lock(&mutex_);
  const int64_t now = Clock::Real().MonotonicMicros();
  if (now < next_ask_us_) {
    if (!failure_.ok()) return failure_;
    if (!lost_) return master_;
  }
  const absl::StatusOr<std::string> found = Ask();
  const int64_t after = Clock::Real().MonotonicMicros();
  if (!found.ok()) {
    next_ask_us_ = after + (lost_ ? kFailureUs : kAskAgainUs);
    if (!lost_) return master_;  // no sentinel to ask says nothing against the master
    failure_ = found.status();
    return failure_;
  }
  failure_ = absl::OkStatus();
  lost_ = false;
  next_ask_us_ = after + kAskAgainUs;
  if (*found != master_.address) {
    master_.address = *found;
    ++master_.generation;
  }
  return master_;
}

void MasterFinder::Lost(uint64_t generation) {
  MutexLock lock(&mutex_);
  if (generation == master_.generation) lost_ = true;
}

absl::StatusOr<std::string> MasterFinder::Ask() {
  absl::Status failure;
  for (size_t i = 0; i < config_.sentinels.size(); ++i) {
    const size_t at = (first_ + i) % config_.sentinels.size();
    absl::StatusOr<std::string> address = AskOne(config_.sentinels[at]);
    if (address.ok()) {
      first_ = at;
      return address;
    }
    failure = address.status();
  }
  return Unavailable("no sentinel names a master \"{}\": {}", config_.master_name,
                     Message(failure));
}

absl::StatusOr<std::string> MasterFinder::AskOne(const std::string& sentinel) const {
  Config config;
  config.address = sentinel;
  config.password = config_.sentinel_password;
  config.connect_timeout = kAskTimeout;
  MasterFinder direct(config);
  Connection connection(config, direct);
  PARLEY_ASSIGN_OR_RETURN(
      const auto replies,
      connection.Run({{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", config_.master_name}}, kAskTimeout));
  PARLEY_RETURN_IF_ERROR(replies[0].status());
  const std::vector<Reply>& parts = replies[0]->elements;
  if (parts.size() != 2) return NotFound("sentinel {} does not know it", sentinel);
  std::string host = parts[0].text;
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return host + ":" + parts[1].text;
}

}  // namespace parley::redis
