#pragma once
// One LiveKit worker's WebSocket, and what the broker knows of it.
#include <absl/time/time.h>

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api_server/livekit/broker_side.h"
#include "api_server/livekit/frames.h"
#include "auth/token.h"
#include "http/websocket.h"

namespace parley::api_server {

class LivekitWorkers;

// Each LiveKit worker has this label, with its id: a job may ask for that very worker.
inline constexpr std::string_view kWorkerLabel = "livekit-worker";

// A worker registers once, and is one worker of the broker from then on. When its WebSocket breaks,
// its jobs wait for it as long as their lease runs. A worker that comes back says which jobs it
// still has (`migrate_job`), on whatever replica: those are kept by registering once more under the
// id they are leased to, beside the new one, until they have ended.
class WorkerConnection final : public http::WebSocketListener,
                               public BrokerSide::Owner,
                               public std::enable_shared_from_this<WorkerConnection> {
 public:
  // `caller` may serve agents (video.agent). `peer`: its address, for people.
  WorkerConnection(LivekitWorkers& workers, auth::Claims caller, std::string peer,
                   std::shared_ptr<http::WebSocket> socket);

  // http::WebSocketListener, on the HTTP server's loop.
  void OnMessage(http::WebSocketMessage message) override;
  void OnClosed() override;

  // On the workers' loop from here on.
  void Open(int64_t now_us);
  // Several times a second: deadlines.
  void Sweep(int64_t now_us);
  bool registered() const { return registered_; }

 private:
  enum class Step {
    kAsked,     // the worker is to say whether it takes it
    kAccepted,  // it does; the broker has not given it yet
    kAssigned,  // it was given to the worker, which has not said that it runs
    kRunning,
    kStopping,  // told to end
    kRevoked,   // no longer ours: told to end, and its slot is free when it has
  };
  // A job as the worker knows it.
  struct Held {
    std::shared_ptr<BrokerSide> side;
    agent::JobKey key;
    Step step = Step::kAsked;
    int64_t until_us = 0;  // of kStopping and kRevoked: then it counts as gone
    std::string room;
    std::string identity;  // in the room
    lk::AvailabilityResponse answer;
    std::optional<dispatch::v1::Go> go;  // it came before the answer
    int64_t assigned_us = 0;
    bool seen = false;  // in its room, or its worker has said that it runs
    // In its room, while its worker has not said how it is.
    int64_t look_us = 0;     // when it is looked for next
    int64_t missing_us = 0;  // since when it is not there; 0: it is, or was not yet
    bool looking = false;
  };
  // A job of an earlier connection that this worker speaks of.
  struct Claim {
    lk::JobStatus status = lk::JS_RUNNING;
    std::string error;
    bool asked = false;
    bool kept = false;                    // it is this worker's still
    std::string worker_id;                // … under this id
    dispatch::v1::Assignment assignment;  // … and these terms
  };

  // BrokerSide::Owner
  void OnRegistered(BrokerSide& side) override;
  void OnLost(BrokerSide& side, const absl::Status& why) override;
  void OnOffer(BrokerSide& side, const dispatch::v1::Assignment& assignment) override;
  void OnGo(BrokerSide& side, const dispatch::v1::Go& go) override;
  void OnStop(BrokerSide& side, const agent::JobKey& key) override;
  void OnRevoke(BrokerSide& side, const agent::JobKey& key) override;
  void OnDrain(BrokerSide& side, absl::Duration deadline) override;

  void Handle(const http::WebSocketMessage& frame);
  void Do(const lk::WorkerMessage& message);
  void Register(const lk::RegisterWorkerRequest& request);
  void OnAvailability(const lk::AvailabilityResponse& answer);
  void OnWorkerStatus(const lk::UpdateWorkerStatus& status);
  void OnJobStatus(const lk::UpdateJobStatus& status);
  void OnMigrate(const lk::MigrateJobRequest& request);
  void OnSimulate(const lk::SimulateJobRequest& request);
  void Send(const lk::ServerMessage& message);
  void Refuse(int code, std::string_view reason);

  void Ask(const dispatch::v1::Assignment& assignment, Held held);
  std::string WhyNot(const dispatch::v1::Assignment& assignment) const;
  void Assign(const std::string& id, Held& held, const dispatch::v1::Go& go);
  absl::StatusOr<std::string> RoomToken(const Held& held, const dispatch::v1::Go& go) const;
  void Terminate(const std::string& id);
  void Over(const std::string& id, dispatch::v1::JobReason reason, std::string_view error);
  std::map<std::string, Held>::iterator Find(const agent::JobKey& key);
  bool accepting(int64_t now_us) const;
  void TellStatus();
  void SweepJob(const std::string& id, Held& held, int64_t now_us);
  void Look(const std::string& id, Held& held);
  void OnLook(const std::string& id, const agent::JobKey& key, const absl::Status& status);

  // Jobs of earlier connections: worker_claims.cc.
  void AddClaim(const std::string& id, Claim claim);
  void AskClaims();
  void AskDispatch(const std::string& id, const dispatch::v1::Job& job);
  void OnClaimJob(const std::string& id, const absl::Status& status, const dispatch::v1::Job& job);
  void OnClaimDispatch(const std::string& id, const absl::Status& status,
                       const dispatch::v1::Dispatch& dispatch);
  bool IsKept(const WireJob& wire, const dispatch::v1::Job& job) const;
  void ClaimAnswered(const absl::Status& status);
  void TakeClaims();
  void SweepInherited();

  std::shared_ptr<BrokerSide> MakeSide(std::string worker_id, int slots);
  void Close();

  LivekitWorkers& workers_;
  const auth::Claims caller_;
  const std::string peer_;
  const std::shared_ptr<http::WebSocket> socket_;
  std::atomic<size_t> waiting_{0};  // messages on their way to the loop

  bool text_ = false;  // the last frame was JSON
  bool deaf_ = false;  // it is being closed
  int64_t register_by_us_ = 0;
  std::optional<lk::RegisterWorkerRequest> request_;
  bool registered_ = false;
  std::vector<http::WebSocketMessage> early_;  // came before the broker answered
  std::shared_ptr<BrokerSide> primary_;        // takes new jobs
  std::vector<std::shared_ptr<BrokerSide>> inherited_;
  std::map<std::string, Held> held_;  // by the worker's id of the job
  double load_ = 0;
  bool available_ = true;
  bool says_status_ = false;  // it has said once how a job is
  bool draining_ = false;
  int64_t drain_by_us_ = 0;  // 0: no deadline
  int rejections_ = 0;       // in a row
  int64_t pause_until_us_ = 0;
  std::map<std::string, Claim> claims_;  // by the worker's id of the job
  int64_t claim_us_ = 0;                 // when the broker is asked about them; 0: not
  size_t claims_asked_ = 0;              // answers that are still to come
  bool claims_unheard_ = false;          // it could not be asked
  int claim_tries_ = 0;
};

}  // namespace parley::api_server
