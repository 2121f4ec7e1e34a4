#pragma once
// Agent servers that exist only as their streams to a broker: their jobs end at once.
#include <absl/status/statusor.h>
#include <parley/dispatch/v1/worker.grpc.pb.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "rpc/bidi.h"

namespace parley::bench {

// One agent server, of programs called `agent_name`, or of configured agents when that is empty:
// takes every job, says that it started and, when it may, that it ended; many jobs in one message
// while the broker is busy with the message before. Thread-safe.
class SimWorker {
 public:
  using Stream = rpc::ClientBidi<dispatch::v1::ConnectRequest, dispatch::v1::ConnectResponse>;
  // Called on gRPC's threads: must only count.
  struct Hooks {
    std::function<bool()> may_end;  // asked once for each job; no: it runs on until EndMore()
    std::function<void()> ended;    // a job's end is recorded
    std::function<void(const dispatch::v1::Assignment&)> came = nullptr;  // a job, to be run
  };

  SimWorker(const std::shared_ptr<grpc::Channel>& channel, const std::string& token,
            const std::string& agent_name, int slots, Hooks hooks);
  ~SimWorker();  // closes the stream and ends the session, so that its jobs are queued again

  absl::Status WaitRegistered();
  void Beat();
  // Asks again for the jobs that run on.
  void EndMore();

 private:
  void OnMessage(const dispatch::v1::ConnectResponse& message);
  void SendWords() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::unique_ptr<dispatch::v1::WorkerService::Stub> stub_;
  const std::string token_;
  const std::string worker_id_;
  const std::string instance_;
  const Hooks hooks_;
  Mutex mutex_;
  CondVar changed_;
  bool registered_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  bool words_out_ ABSL_GUARDED_BY(mutex_) = false;  // sent, not answered
  uint64_t beats_ ABSL_GUARDED_BY(mutex_) = 0;
  dispatch::v1::ConnectRequest words_ ABSL_GUARDED_BY(mutex_);
  std::vector<dispatch::v1::Go> running_on_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Stream> stream_;
};

// Many of them, with heartbeats.
class SimWorkers {
 public:
  // Returns once all are registered. `slots` of each.
  static absl::StatusOr<std::unique_ptr<SimWorkers>> Start(const std::string& address,
                                                           const std::string& token,
                                                           const std::string& agent_name,
                                                           int workers, int slots,
                                                           const SimWorker::Hooks& hooks);
  ~SimWorkers();
  void EndMore();

 private:
  SimWorkers() = default;
  void BeatLoop();

  std::vector<std::unique_ptr<SimWorker>> workers_;  // never grows beyond what was reserved
  std::atomic<size_t> beating_{0};                   // the first so many have heartbeats
  std::atomic<bool> stopping_{false};
  std::thread beats_;
};

}  // namespace parley::bench
