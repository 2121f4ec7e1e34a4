#include "job_redis/ring.h"

#include <algorithm>
#include <set>
#include <utility>

namespace parley::job {
namespace {

constexpr int64_t kKeepUs = 60'000'000;
constexpr size_t kMaxEntries = 200'000;
constexpr size_t kMaxBytes = 128u << 20;

}  // namespace

void Ring::Add(std::string_view pool, std::vector<std::string> fact) {
  Entry entry;
  entry.at_us = clock_.MonotonicMicros();
  entry.pool = pool;
  entry.fact = std::move(fact);
  MutexLock lock(&mutex_);
  Put(std::move(entry));
}

void Ring::Put(Entry entry) {
  for (const std::string& part : entry.fact) entry.bytes += sizeof(std::string) + part.size();
  bytes_ += entry.bytes;
  entries_.push_back(std::move(entry));
  Trim(entries_.back().at_us);
}

void Ring::Load(std::vector<JournalFact> facts) {
  const absl::Time wall = clock_.Now();
  const int64_t now = clock_.MonotonicMicros();
  MutexLock lock(&mutex_);
  for (JournalFact& fact : facts) {
    Entry entry;
    entry.at_us = now - std::max<int64_t>(0, absl::ToInt64Microseconds(wall - fact.time));
    entry.pool = std::move(fact.pool);
    entry.fact = std::move(fact.parts);
    Put(std::move(entry));
  }
}

std::vector<std::string> Ring::Pools() const {
  MutexLock lock(&mutex_);
  std::set<std::string> pools;
  for (const Entry& entry : entries_) pools.insert(entry.pool);
  return {pools.begin(), pools.end()};
}

void Ring::Trim(int64_t now_us) {
  while (!entries_.empty()) {
    const Entry& oldest = entries_.front();
    const bool fits = entries_.size() <= kMaxEntries && bytes_ <= kMaxBytes;
    if (fits && now_us - oldest.at_us <= kKeepUs) return;
    bytes_ -= oldest.bytes;
    entries_.pop_front();
  }
}

std::vector<std::vector<std::string>> Ring::Of(std::string_view pool) {
  const int64_t now = clock_.MonotonicMicros();
  MutexLock lock(&mutex_);
  Trim(now);
  std::vector<std::vector<std::string>> facts;
  for (const Entry& entry : entries_) {
    if (entry.pool == pool) facts.push_back(entry.fact);
  }
  return facts;
}

size_t Ring::size() const {
  MutexLock lock(&mutex_);
  return entries_.size();
}

}  // namespace parley::job
