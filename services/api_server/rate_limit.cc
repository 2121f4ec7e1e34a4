#include "api_server/rate_limit.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/status.h"

namespace parley::api_server {
namespace {

constexpr double kMinuteUs = 60e6;
constexpr size_t kPrefixBytes = 8;  // of an IPv6 address: what a network gives to one customer

}  // namespace

RateLimit::RateLimit(int per_minute, const Clock& clock, size_t max_keys)
    : per_minute_(per_minute), clock_(clock), max_keys_(std::max<size_t>(max_keys, 1)) {}

absl::Status RateLimit::Take(std::string_view key) {
  if (per_minute_ <= 0) return absl::OkStatus();
  const int64_t now_us = clock_.MonotonicMicros();
  MutexLock lock(&mutex_);
  if (const auto known = by_key_.find(key); known != by_key_.end()) {
    buckets_.splice(buckets_.begin(), buckets_, known->second);
  } else {
    if (buckets_.size() >= max_keys_) {
      by_key_.erase(buckets_.back().key);
      buckets_.pop_back();
    }
    buckets_.push_front({std::string(key), static_cast<double>(per_minute_), now_us});
    by_key_[std::string(key)] = buckets_.begin();
  }
  Bucket& bucket = buckets_.front();
  const double refill = static_cast<double>(now_us - bucket.at_us) / kMinuteUs * per_minute_;
  bucket.left = std::min<double>(per_minute_, bucket.left + refill);
  bucket.at_us = now_us;
  if (bucket.left >= 1) {
    bucket.left -= 1;
    return absl::OkStatus();
  }
  const double wait_ms = std::ceil((1 - bucket.left) / per_minute_ * kMinuteUs / 1000);
  return WithReason(ResourceExhausted("more than {} calls a minute", per_minute_), "RATE_LIMITED",
                    {{"retry_after_ms", fmt::format("{:.0f}", wait_ms)}});
}

std::string ClientKey(std::string_view address) {
  const std::string text(address);
  std::array<unsigned char, 16> bytes{};
  if (inet_pton(AF_INET6, text.c_str(), bytes.data()) != 1) return text;
  constexpr std::array<unsigned char, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (std::equal(kMapped.begin(), kMapped.end(), bytes.begin())) {
    return fmt::format("{}.{}.{}.{}", bytes[12], bytes[13], bytes[14], bytes[15]);
  }
  std::string prefix;
  for (size_t i = 0; i < kPrefixBytes; ++i) prefix += fmt::format("{:02x}", bytes[i]);
  return prefix;
}

}  // namespace parley::api_server
