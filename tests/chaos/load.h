#pragma once
// The clients of a chaos run: they ask for agents until they are answered, end some of the
// dispatches, have jobs handed over, and write down everything that they were promised.
#include <absl/status/status.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>

#include <atomic>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "log/append_file.h"

namespace parley::chaos {

struct LoadOptions {
  std::string brokers;   // gRPC target
  std::string evidence;  // file of notes
  unsigned seed = 1;
  int dispatches = 2000;
  double seconds = 300;  // over which they are spread
};

// Threads of its own from Start to Stop.
class Load {
 public:
  explicit Load(LoadOptions options);
  ~Load();

  absl::Status Start();
  // Whether every dispatch was asked for, and acknowledged or given up, and every end that was
  // wished for was taken.
  bool done() const;
  int acked() const { return acked_.load(); }
  int migrated() const { return migrated_.load(); }  // hand-overs that a broker began
  // Reads the dispatches that had not ended when last read; how many have not ended yet. Those
  // that have are noted. Blocks for a call each.
  int CountOpen();
  void Stop();

 private:
  struct Plan;
  struct Later {
    int64_t at_us = 0;
    std::string id;  // a dispatch: end it; a job: hand it over
    bool operator<(const Later& other) const { return at_us > other.at_us; }  // soonest on top
  };

  Plan PlanOf(int number) const;
  void Create();
  void Disturb();
  void EndOne(const std::string& id);
  void MigrateOne(const std::string& job);
  void Ask(int number);
  void Note(const std::string& fields);

  const LoadOptions options_;
  const std::string token_;
  std::unique_ptr<log::AppendFile> notes_;
  std::unique_ptr<dispatch::v1::DispatchService::Stub> stub_;
  std::vector<std::thread> threads_;
  int64_t begin_us_ = 0;
  std::atomic<int> next_{0};
  std::atomic<int> settled_{0};
  std::atomic<int> acked_{0};
  std::atomic<int> migrated_{0};
  std::atomic<bool> stopping_{false};
  mutable Mutex mutex_;
  std::set<std::string> open_ ABSL_GUARDED_BY(mutex_);
  std::priority_queue<Later> later_ ABSL_GUARDED_BY(mutex_);
  int under_way_ ABSL_GUARDED_BY(mutex_) = 0;  // taken from later_, not yet answered
};

}  // namespace parley::chaos
