#pragma once
#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <string>

#include "base/executor.h"
#include "base/mutex.h"
#include "dispatch_broker/broker.h"
#include "dispatch_broker/convert.h"

namespace parley::dispatch_broker {

// One ReadJobLogs call: asks the stream of the job's agent server and passes on what it answers. If
// another broker holds that stream, that one is asked in its turn. Thread-safe.
class LogStream : public grpc::ServerWriteReactor<v1::ReadJobLogsResponse> {
 public:
  // The returned reactor belongs to gRPC. Ends at once when `status` is not OK. Empty project: any.
  // `relayed`: a broker asks, so this one asks no further.
  static grpc::ServerWriteReactor<v1::ReadJobLogsResponse>* Start(
      Broker& broker, const absl::Status& status, const std::string& project,
      const v1::ReadJobLogsRequest& request, bool relayed);
  // Whether a call came from another broker.
  static bool IsRelayed(const grpc::ServerContextBase& context);

  LogStream(Broker& broker, std::string project, v1::ReadJobLogsRequest request, bool relayed);

  // A piece of the answer. False when nobody reads any more.
  bool OnChunk(const v1::JobLogChunk& chunk);
  // What was sent already still goes out when `status` is OK.
  void End(const grpc::Status& status);

 private:
  class Relay;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  absl::Status Ask();
  absl::Status AskElsewhere(const job::Job& job);
  // False when nobody reads any more.
  bool Push(v1::ReadJobLogsResponse lines);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishNow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Broker& broker_;
  const std::string project_;
  const v1::ReadJobLogsRequest request_;
  const bool relayed_;
  Strand strand_;
  std::shared_ptr<LogStream> self_;  // until OnDone
  std::weak_ptr<LogStream> weak_;
  std::weak_ptr<WorkerSession> worker_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Relay> relay_ ABSL_GUARDED_BY(mutex_);
  mutable Mutex mutex_;
  std::deque<v1::ReadJobLogsResponse> outbox_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status final_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::dispatch_broker
