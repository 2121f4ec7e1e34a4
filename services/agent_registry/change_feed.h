#pragma once
// Reads the changes of the projects that somebody watches, on one thread for all watchers.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "log/log.h"
#include "registry/store.h"

namespace parley::agent_registry {

// Who watches. Called on the feed's thread, one call at a time; must not block.
class Watcher {
 public:
  virtual ~Watcher() = default;
  // False: take no more for now; the same change comes again.
  virtual bool OnChange(const registry::Change& change) = 0;
  // The last call: the position is no longer kept (OutOfRange), or the server stops (Unavailable).
  virtual void OnEnd(const absl::Status& status) = 0;
};

// Thread-safe.
class ChangeFeed {
 public:
  // `store` must outlive the feed.
  ChangeFeed(registry::AgentStore& store, absl::Duration interval, log::Logger log);
  ~ChangeFeed();  // as Stop()
  ChangeFeed(const ChangeFeed&) = delete;
  ChangeFeed& operator=(const ChangeFeed&) = delete;

  // Changes of `project` after `after_sequence`, until the watcher is gone or has got OnEnd.
  void Add(const std::string& project, uint64_t after_sequence, std::weak_ptr<Watcher> watcher);
  // Ends all watchers. Idempotent.
  void Stop();

 private:
  struct Watch {
    std::string project;
    uint64_t position = 0;
    std::weak_ptr<Watcher> watcher;
  };
  void Run();
  // False when the watch is over.
  bool Serve(Watch& watch);

  registry::AgentStore& store_;
  const absl::Duration interval_;
  const log::Logger log_;
  Mutex mutex_;
  CondVar wake_;
  std::vector<Watch> added_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Watch> watches_;  // the thread's own
  bool reachable_ = true;       // the thread's own: the store answered last time
  std::thread thread_;
};

}  // namespace parley::agent_registry
