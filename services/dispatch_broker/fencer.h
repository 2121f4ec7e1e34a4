#pragma once
#include <absl/status/status.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "dispatch_broker/metrics.h"
#include "job/store.h"
#include "parley/room/v1/room.grpc.pb.h"
#include "room_redis/directory.h"
#include "service/service.h"

namespace parley::dispatch_broker {

// Tells rooms that a job is over, so that no copy of it is let in any more, however long it was cut
// off. The store keeps each fence until a room server has it: any broker may bring it, twice does
// no harm. One thread, one call at a time, each with a deadline. Thread-safe.
class Fencer {
 public:
  // All must outlive it. `pools`: those to look at.
  Fencer(job::JobStore& store, redis::Pool& redis, service::Context& context,
         DispatchBrokerMetrics& metrics, std::function<std::vector<std::string>()> pools);
  ~Fencer();  // as Stop()

  void Start();
  void Stop();  // idempotent

 private:
  void Loop();
  void BringAll(const std::string& pool);
  absl::Status Bring(const job::Fence& fence);
  absl::Status Call(const std::string& media_url, const job::Fence& fence);

  job::JobStore& store_;
  service::Context& context_;
  DispatchBrokerMetrics& metrics_;
  const std::function<std::vector<std::string>()> pools_;
  room_redis::Directory directory_;
  std::map<std::string, std::unique_ptr<parley::room::v1::AdmissionService::Stub>> stubs_;
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace parley::dispatch_broker
