#pragma once
// The agent server: keeps the broker's picture of its jobs true, starts and ends their processes.
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/server/broker_link.h"
#include "agent/server/job_process.h"
#include "agent/server/job_table.h"
#include "agent/server/load.h"
#include "agent/server/requests.h"
#include "base/mutex.h"

namespace parley::agent {

// Lives on one loop. Start() and Drain() are called there; Snapshot() from any thread.
class AgentServer final : public BrokerLink::Handler, public JobProcess::Host {
 public:
  struct Identity {
    std::string worker_id;
    std::string instance;
  };
  struct Callbacks {
    // Once, after the first registration.
    std::function<void()> on_registered;
    // It cannot go on: the start failed, or the zygote is gone. The jobs are over.
    std::function<void(const absl::Status&)> on_failed;
    // It may take jobs now, or no more: registered and not draining. Only when that changes.
    std::function<void(bool)> on_ready;
    // The drain is over, the broker knows: leave.
    std::function<void()> on_drained;
    // What the zygote should send when this process dies; called with each registration.
    std::function<void(const Identity&, uint64_t connect_seq)> on_session;
  };
  // For /worker.
  struct Snapshot {
    std::string worker_id;
    bool registered = false;
    bool draining = false;
    int active_jobs = 0;
    double load = 0;
    bool cgroups = false;  // jobs have control groups of their own
  };

  // `around`'s media and gateways are used with `identity`. Everything must outlive this.
  AgentServer(JobSurroundings& around, Identity identity, std::map<std::string, std::string> labels,
              std::function<std::string()> token, Callbacks callbacks);
  ~AgentServer() override;

  // Prewarms, forks what is to wait, registers.
  void Start();
  // Takes no more jobs from now on. What still runs at the deadline is handed over to other agent
  // servers; what nobody takes is told to end. A second call may only bring the deadline forward.
  void Drain(absl::Duration deadline);
  Snapshot Now() const;

 private:
  using JobReason = parley::dispatch::v1::JobReason;

  // BrokerLink::Handler
  void FillRegister(parley::dispatch::v1::Register& request) override;
  void OnBroker(const parley::dispatch::v1::ConnectResponse& response) override;
  bool OnBrokerLost(const absl::Status& status, bool was_registered) override;
  // JobProcess::Host
  void OnJobReady(JobProcess& process) override;
  void OnJobEntered(JobProcess& process) override;
  void OnJobCheckpoint(JobProcess& process, const std::string& blob) override;
  void OnJobStalled(JobProcess& process, const parley::job::v1::Stalled& stalled) override;
  void OnJobPrepared(JobProcess& process) override;
  bool OnJobHandedOver(JobProcess& process, const std::string& blob) override;

  void OnRegistered(const parley::dispatch::v1::Registered& registered);
  void OnOffer(const parley::dispatch::v1::Offer& offer);
  void AnswerOffer(const JobKey& key, const JobAnswer& answer);
  void OnGo(const parley::dispatch::v1::Go& go);
  void OnDecided(const JobKey& key, const JobAnswer& answer);
  void OnReadLogs(const parley::dispatch::v1::ReadLogs& request);
  void OnHandOver(const parley::dispatch::v1::HandOver& hand_over);
  void OnTakeOver(const parley::dispatch::v1::TakeOver& take_over);
  void OnVerdicts(const parley::dispatch::v1::WordVerdicts& verdicts);
  void Obey(const JobKey& key, JobTable::Order order);
  void StopJob(const JobKey& key, absl::Duration grace);
  void RevokeJob(const JobKey& key);
  void Release(const JobKey& key);

  void OnZygote();
  void OnForked(supervise::JobForked forked);
  void OnExited(const supervise::JobExited& exited);
  void StartJob(const parley::dispatch::v1::Go& go);
  void Assign(JobProcess& process, const parley::dispatch::v1::Go& go);
  void Fork();
  void FillWarmPool();
  void OnStartFailed(const std::string& error);
  JobProcess* TakeWarm();
  JobProcess* Running(const JobKey& key);

  void Beat();  // once a second
  void TellRecordings();
  void SayWords();
  void GiveMemoryBack();
  void WatchJobs();
  void OnDrainDeadline();
  void HandOverSome();
  void EndWhatIsLeft();
  void FinishDrainIfDone();
  void TakeNewIdentityIfIdle();
  bool accepting() const;
  bool backing_off() const;
  void UpdateGauges();

  JobSurroundings& around_;
  Identity identity_;
  const std::map<std::string, std::string> labels_;
  const Callbacks callbacks_;
  JobTable table_;
  BrokerLink broker_;
  Requests requests_;
  std::map<JobKey, parley::dispatch::v1::Go> undecided_;  // ours, before the program was asked
  LoadMeter load_meter_;
  double load_ = 0;
  event::FdWatcher zygote_watcher_;
  event::Timer beat_timer_;
  event::Timer watch_timer_;  // runs only while there are processes to watch
  bool watching_ = false;
  event::Timer warm_timer_;
  event::Timer drain_timer_;
  // Past the drain's deadline: when each hand-over was asked for, or may be asked for again.
  std::map<JobKey, int64_t> asked_us_;
  std::map<JobKey, int64_t> ask_again_us_;
  int64_t hand_over_until_us_ = 0;  // 0: before the deadline
  int64_t drain_at_us_ = 0;
  size_t left_ = 0;  // running jobs at the last look
  uint64_t beats_ = 0;
  bool words_pending_ = false;
  size_t swept_ = 0;             // records of jobs forgotten since memory was given back
  bool store_available_ = true;  // the broker's, as it said last
  int64_t store_away_since_us_ = 0;
  uint64_t fork_requests_ = 0;
  int forks_under_way_ = 0;
  bool warm_pending_ = false;
  bool ever_started_ = false;  // a job process; until then they are tried one at a time
  int start_failures_ = 0;     // in a row
  int64_t start_again_us_ = 0;
  std::map<pid_t, std::unique_ptr<JobProcess>> processes_;
  std::deque<parley::dispatch::v1::Go> waiting_;  // for a process
  bool ready_ = false;                            // prewarmed
  bool cgroups_ = false;
  bool registered_once_ = false;
  bool replaced_ = false;  // the broker has ended our session: a new id is due
  bool draining_ = false;
  bool drained_ = false;
  bool failed_ = false;
  bool said_ready_ = false;

  mutable Mutex snapshot_mutex_;
  Snapshot snapshot_ ABSL_GUARDED_BY(snapshot_mutex_);
};

}  // namespace parley::agent
