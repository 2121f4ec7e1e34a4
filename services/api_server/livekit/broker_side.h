#pragma once
// One worker at the broker, on behalf of a LiveKit worker: its session and lease, its jobs, and
// what is said about them.
#include <absl/time/time.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "agent/server/broker_link.h"
#include "agent/server/job_table.h"

namespace parley::api_server {

// Lives on one loop, held by shared_ptr.
class BrokerSide final : public agent::BrokerLink::Handler,
                         public std::enable_shared_from_this<BrokerSide> {
 public:
  // Called on the loop. Must not destroy the side in a call: post that.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void OnRegistered(BrokerSide& side) = 0;  // the first time
    // The broker refuses this worker, or its session has ended. Nothing more comes.
    virtual void OnLost(BrokerSide& side, const absl::Status& why) = 0;
    virtual void OnOffer(BrokerSide& side, const dispatch::v1::Assignment& assignment) = 0;
    // It holds a slot in jobs() now.
    virtual void OnGo(BrokerSide& side, const dispatch::v1::Go& go) = 0;
    virtual void OnStop(BrokerSide& side, const agent::JobKey& key) = 0;
    // May name a job that was only offered.
    virtual void OnRevoke(BrokerSide& side, const agent::JobKey& key) = 0;
    virtual void OnDrain(BrokerSide& side, absl::Duration deadline) = 0;
  };
  struct Facts {
    std::string worker_id;
    std::string instance;
    std::string agent_name;
    std::string deployment;
    std::string version;
    std::string hostname;
    std::map<std::string, std::string> labels;
    int slots = 1;
  };

  // `owner` must outlive this or be forgotten with Leave(). `after_seq`: as BrokerLink.
  BrokerSide(std::shared_ptr<event::Loop> loop, const std::shared_ptr<grpc::Channel>& channel,
             std::function<std::string()> token, Facts facts, uint64_t after_seq, Owner& owner);

  const std::string& worker_id() const { return facts_.worker_id; }
  const agent::JobTable& jobs() const { return jobs_; }

  // A job that runs, under the token it had when its worker was elsewhere. Before Start().
  void Inherit(const dispatch::v1::Assignment& assignment);
  void Start();
  // Told to the broker with each heartbeat, and at once when `accepting` changes.
  void SetStatus(double load, bool accepting);

  // ---- about an offer ----
  void Accept(const agent::JobKey& key);
  void Reject(const agent::JobKey& key, bool final, std::string_view why);
  // ---- about a job of jobs() ----
  void Started(const agent::JobKey& key);
  void Stopping(const agent::JobKey& key);
  void Ended(const agent::JobKey& key, dispatch::v1::JobReason reason, std::string_view error);
  void Released(const agent::JobKey& key);

  // Its worker is gone: what the broker has not heard yet is said, for some seconds at most. Then,
  // without jobs, the session is ended; with jobs its lease runs on, and whoever registers under
  // this id within it keeps them. `done` is called once; the owner is not called any more.
  void Leave(std::function<void()> done);

 private:
  void FillRegister(dispatch::v1::Register& request) override;
  void OnBroker(const dispatch::v1::ConnectResponse& response) override;
  bool OnBrokerLost(const absl::Status& status, bool was_registered) override;

  void OnRegistered(const dispatch::v1::Registered& registered);
  void OnGo(const dispatch::v1::Go& go);
  void Obey(const agent::JobKey& key, agent::JobTable::Order order);
  void Revoke(const agent::JobKey& key);
  void SayWord(const agent::JobKey& key, dispatch::v1::Word::Kind kind, bool final = false,
               std::string_view error = {});
  void SayWords();
  void Beat();
  void LeaveIfDone();
  void Gone();

  const std::shared_ptr<event::Loop> loop_;
  const Facts facts_;
  Owner* owner_;  // null: it has left
  agent::JobTable jobs_;
  agent::BrokerLink link_;
  event::Timer beat_timer_;
  event::Timer leave_timer_;
  std::function<void()> left_;  // set by Leave
  double load_ = 0;
  bool accepting_ = true;
  bool registered_once_ = false;
  bool over_ = false;  // lost, or gone
  bool words_pending_ = false;
  bool store_available_ = true;
  int64_t store_away_since_us_ = 0;
  uint64_t beats_ = 0;
};

}  // namespace parley::api_server
