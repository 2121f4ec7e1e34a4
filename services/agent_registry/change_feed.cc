#include "agent_registry/change_feed.h"

#include <algorithm>

#include "base/status.h"

namespace parley::agent_registry {

ChangeFeed::ChangeFeed(registry::AgentStore& store, absl::Duration interval, log::Logger log)
    : store_(store), interval_(interval), log_(std::move(log)), thread_([this] { Run(); }) {}

ChangeFeed::~ChangeFeed() { Stop(); }

void ChangeFeed::Add(const std::string& project, uint64_t after_sequence,
                     std::weak_ptr<Watcher> watcher) {
  MutexLock lock(&mutex_);
  if (stopped_) {
    if (auto alive = watcher.lock()) alive->OnEnd(Unavailable("the agent registry stops"));
    return;
  }
  added_.push_back({project, after_sequence, std::move(watcher)});
  wake_.Signal();
}

void ChangeFeed::Stop() {
  {
    MutexLock lock(&mutex_);
    if (stopped_) return;
    stopped_ = true;
    wake_.Signal();
  }
  thread_.join();
  for (Watch& watch : watches_) {
    if (auto watcher = watch.watcher.lock())
      watcher->OnEnd(Unavailable("the agent registry stops"));
  }
}

void ChangeFeed::Run() {
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (!stopped_ && added_.empty()) {
        if (watches_.empty()) {
          wake_.Wait(&mutex_);
        } else {
          wake_.WaitFor(&mutex_, interval_);
        }
      }
      std::move(added_.begin(), added_.end(), std::back_inserter(watches_));
      added_.clear();
      if (stopped_) return;
    }
    std::erase_if(watches_, [this](Watch& watch) { return !Serve(watch); });
  }
}

bool ChangeFeed::Serve(Watch& watch) {
  const std::shared_ptr<Watcher> watcher = watch.watcher.lock();
  if (watcher == nullptr) return false;
  const auto changes = store_.ReadChanges(watch.project, watch.position, absl::ZeroDuration());
  if (changes.status().code() == absl::StatusCode::kOutOfRange) {
    watcher->OnEnd(changes.status());
    return false;
  }
  if (changes.ok() != reachable_) {
    reachable_ = changes.ok();
    if (reachable_) {
      log_.Info("changes are read again");
    } else {
      log_.Warn("changes cannot be read; watchers wait", {{"error", Message(changes.status())}});
    }
  }
  if (!changes.ok()) return true;
  for (const registry::Change& change : *changes) {
    if (!watcher->OnChange(change)) break;
    watch.position = change.sequence;
  }
  return true;
}

}  // namespace parley::agent_registry
