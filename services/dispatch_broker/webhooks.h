#pragma once
// Webhooks: URLs of the configuration that are told what happens to dispatches, jobs and rooms.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "dispatch_broker/broker.h"
#include "http/client.h"
#include "job_redis/webhook_cursors.h"

namespace parley::dispatch_broker {

struct WebhookOptions {
  std::vector<std::string> urls;
  bool metadata = false;                      // send metadata and attributes of dispatches, too
  absl::Duration timeout = absl::Seconds(5);  // of one request
  absl::Duration first_retry = absl::Milliseconds(500);  // doubles, to at most 30 s
  int attempts = 10;  // then an event is dropped, and the next one has its turn
};

// What LiveKit's receivers read (`event`, `id`, `createdAt`, `room`), with ids and states of the
// dispatch and the job beside it; signed with the first key of the event's project. Events:
// dispatch_created, agent_job_started, agent_job_ended, dispatch_ended; of rooms room_started,
// room_finished, participant_joined, participant_left: people, as room servers report them (each
// 100 ms, so that who comes and goes within is not told). "" for other events: those are not told.
std::string WebhookBody(const job::Event& event, const job::Dispatch* dispatch);

// One thread for each URL. Of all brokers one at a time tells a URL about a pool: who holds the
// lease on that place in the pool's stream. Events are told in order, one after another, and again
// until the URL has answered 2xx, with a back-off; a broker that dies between an answer and its
// note tells that event twice, under the same `id`. A URL that is new hears what happens from then
// on. Nothing is queued here: who is behind reads the stream later.
class Webhooks : public EventWatcher {
 public:
  // All references must outlive it.
  Webhooks(WebhookOptions options, Broker& broker, job::WebhookCursors& cursors);
  ~Webhooks() override;  // as Stop()

  void Start();
  // Hands its leases back; waits at most for a request under way. Idempotent.
  void Stop();
  void OnEvents(const std::vector<std::string>& pools) override;

 private:
  void Serve(const std::string& url);
  absl::Status TellPool(const std::string& url, const std::string& webhook, const std::string& pool,
                        bool from_now);
  // False: the lease went to somebody else, or we stop.
  absl::StatusOr<bool> TellEvent(const std::string& url, const std::string& webhook,
                                 const job::Event& event, const std::string& before);
  bool Post(const std::string& url, const job::Event& event, const std::string& body);
  std::set<std::string> RoomPools() const;
  // For `at_most`; not null: or until there is news that `*seen` has not counted. False when
  // stopping.
  bool Wait(absl::Duration at_most, uint64_t* seen);

  const WebhookOptions options_;
  Broker& broker_;
  job::WebhookCursors& cursors_;
  http::Client client_;
  Mutex mutex_;
  CondVar wake_;
  uint64_t news_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace parley::dispatch_broker
