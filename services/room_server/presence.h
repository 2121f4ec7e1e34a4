#pragma once
// Tells the broker who is in which room, so that publisher, participant and while_present
// dispatches get their jobs.
#include <grpcpp/grpcpp.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "log/log.h"
#include "room/rooms.h"
#include "room_server/metrics.h"

namespace parley::room_server {

// Looks at all rooms ten times a second (less often when that takes long), and reports those that
// changed, closed, or depend on being repeated. What a broker did not take is said again.
// Thread-safe.
class PresenceReporter {
 public:
  using TokenSource = std::function<std::string(const std::string& project)>;
  // Everything passed by reference must outlive it.
  PresenceReporter(std::shared_ptr<grpc::Channel> channel, TokenSource tokens, room::Rooms& rooms,
                   RoomServerMetrics& metrics, log::Logger log);
  ~PresenceReporter();  // as Stop()
  // This room is closed here, now or soon, but goes on at another server: its end is not reported.
  void GoesOnElsewhere(const std::string& room_sid);
  // Waits for a call under way (at most 2 s). Idempotent. Stop it before rooms are closed because
  // the server stops: they go on elsewhere, and what waits for them must not end.
  void Stop();

 private:
  struct Known {
    std::string project;
    std::string name;
    std::string people;       // as reported; "\n" before the first report
    int64_t reported_us = 0;  // monotonic
    bool watched = false;     // repeat it
  };
  using Report = dispatch::v1::ReportPresenceRequest;

  void Loop();
  // True when the broker took everything there was to say.
  bool Look();
  bool Send(const Report& report, const std::map<std::string, std::string>& people);

  const TokenSource tokens_;
  room::Rooms& rooms_;
  RoomServerMetrics& metrics_;
  const log::Logger log_;
  const std::unique_ptr<dispatch::v1::DispatchService::Stub> stub_;
  bool failing_ = false;                // the loop's only
  std::map<std::string, Known> known_;  // by room sid; the loop's only
  Mutex mutex_;
  CondVar wake_;
  std::set<std::string> elsewhere_ ABSL_GUARDED_BY(mutex_);  // rooms, by sid
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace parley::room_server
