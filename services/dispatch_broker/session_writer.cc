#include "dispatch_broker/session_writer.h"

#include <algorithm>
#include <iterator>

#include "base/status.h"

namespace parley::dispatch_broker {
namespace {

constexpr size_t kMaxWaiting = 100'000;
constexpr size_t kPerCall = 200;  // so that nobody else waits long for the store

}  // namespace

void SessionWriter::Add(std::vector<job::SessionRecord> records) {
  MutexLock lock(&mutex_);
  if (waiting_.size() + records.size() > kMaxWaiting) {
    log_.Warn("session records not kept: too many wait", {{"sessions", records.size()}});
    return;
  }
  std::move(records.begin(), records.end(), std::back_inserter(waiting_));
  if (writing_ || waiting_.empty()) return;
  writing_ = executor_.PostAdmitted([this] { Write(); });
}

void SessionWriter::Write() {
  std::vector<job::SessionRecord> some;
  {
    MutexLock lock(&mutex_);
    const size_t count = std::min(waiting_.size(), kPerCall);
    const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(count);
    some.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
    waiting_.erase(waiting_.begin(), end);
  }
  if (absl::Status status = store_.SaveSessions(some); !status.ok()) {
    log_.Warn("session records not kept", {{"sessions", some.size()}, {"error", Message(status)}});
  }
  MutexLock lock(&mutex_);
  writing_ = !waiting_.empty() && executor_.PostAdmitted([this] { Write(); });
}

}  // namespace parley::dispatch_broker
