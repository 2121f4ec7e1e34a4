#pragma once
#include <grpcpp/grpcpp.h>

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/executor.h"
#include "base/mutex.h"
#include "dispatch_broker/broker.h"
#include "dispatch_broker/convert.h"

namespace parley::dispatch_broker {

// Where a watcher of several pools stands: "POOL=epoch-n,POOL=epoch-n", pools escaped. Pools that
// are not in it are read from their oldest event.
using EventPositions = std::map<std::string, std::string>;
std::string PositionText(const EventPositions& positions);
// InvalidArgument: not one of ours.
absl::StatusOr<EventPositions> ParsePosition(std::string_view text);

// One WatchEvents call. It pulls from the store what it has room for, whenever there may be
// something new, so that a slow reader costs nothing but its own delay.
class EventStream : public grpc::ServerWriteReactor<v1::WatchEventsResponse>, public EventWatcher {
 public:
  // The returned reactor belongs to gRPC. Ends at once when `status` is not OK. Empty project: all.
  static grpc::ServerWriteReactor<v1::WatchEventsResponse>* Start(
      Broker& broker, const absl::Status& status, const std::string& project,
      const v1::WatchEventsRequest& request);

  void OnEvents(const std::vector<std::string>& pools) override;

  EventStream(Broker& broker, std::string project, v1::WatchEventsRequest request);

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // On the strand.
  absl::Status Begin();
  void Pull(const std::vector<std::string>& pools);
  // Sets `*at_end` when nothing was left to read.
  absl::Status PullPool(const std::string& pool, bool* at_end);
  void EndWhenSent();
  bool Wanted(const job::Event& event) const;

  void Push(v1::WatchEventsResponse response);
  void End(const grpc::Status& status);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom() const;

  Broker& broker_;
  const std::string project_;
  const v1::WatchEventsRequest request_;
  Strand strand_;
  EventPositions positions_;           // strand
  bool begun_ = false;                 // strand
  std::set<std::string> unread_;       // pools whose past is still to come; strand
  std::shared_ptr<EventStream> self_;  // until OnDone
  std::weak_ptr<EventStream> weak_;
  mutable Mutex mutex_;
  std::deque<v1::WatchEventsResponse> outbox_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;  // with what is in the outbox
};

}  // namespace parley::dispatch_broker
