#include "dispatch_broker/session_writer.h"

#include <algorithm>

#include "base/status.h"

namespace parley::dispatch_broker {
namespace {

constexpr size_t kMaxWaiting = 100'000;
constexpr size_t kPerCall = 200;  // so that nobody else waits long for the store

void Merge(job::SessionRecord newer, job::SessionRecord& record) {
  if (newer.start_time == absl::InfinitePast()) newer.start_time = record.start_time;
  if (newer.end_time == absl::InfinitePast()) newer.end_time = record.end_time;
  if (newer.report.empty()) newer.report = std::move(record.report);
  record = std::move(newer);
}

}  // namespace

void SessionWriter::Add(std::vector<job::SessionRecord> records) {
  MutexLock lock(&mutex_);
  size_t dropped = 0;
  for (job::SessionRecord& record : records) {
    const auto it = waiting_.find(record.id);
    if (it != waiting_.end()) {
      Merge(std::move(record), it->second);
    } else if (waiting_.size() == kMaxWaiting) {
      ++dropped;
    } else {
      order_.push_back(record.id);
      waiting_.emplace(order_.back(), std::move(record));
    }
  }
  if (dropped > 0) {
    log_.Warn("session records not kept: too many wait", {{"sessions", dropped}});
  }
  if (writing_ || waiting_.empty()) return;
  writing_ = executor_.PostAdmitted([this] { Write(); });
}

void SessionWriter::Write() {
  std::vector<job::SessionRecord> some;
  {
    MutexLock lock(&mutex_);
    while (!order_.empty() && some.size() < kPerCall) {
      some.push_back(std::move(waiting_.extract(order_.front()).mapped()));
      order_.pop_front();
    }
  }
  if (absl::Status status = store_.SaveSessions(some); !status.ok()) {
    log_.Warn("session records not kept", {{"sessions", some.size()}, {"error", Message(status)}});
  }
  MutexLock lock(&mutex_);
  writing_ = !waiting_.empty() && executor_.PostAdmitted([this] { Write(); });
}

}  // namespace parley::dispatch_broker
