#pragma once
// One job process as its server sees it: the socket, the timers, and everything the job may reach.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/agent.h"
#include "agent/server/job_socket.h"
#include "agent/server/job_surroundings.h"
#include "agent/server/job_table.h"
#include "agent/server/job_tools.h"
#include "agent/server/wake_rule.h"
#include "event/loop.h"
#include "log/log.h"
#include "parley/dispatch/v1/worker.pb.h"
#include "supervise/zygote.h"
#include "trace/tracer.h"

namespace parley::agent {

// How an attempt ended.
struct JobOutcome {
  bool released = false;  // no outcome of its own: revoked
  parley::dispatch::v1::JobReason reason = parley::dispatch::v1::JOB_REASON_UNSPECIFIED;
  std::string error;
  parley::dispatch::v1::SessionReport session;
};

// Loop thread only. Lives from the fork until the process was reaped.
class JobProcess final : public RoomSink {
 public:
  class Host {
   public:
    virtual ~Host() = default;
    // It has started, and waits for its job or takes it.
    virtual void OnJobReady(JobProcess& process) = 0;
    // Its entrypoint runs; a job that was taken over: it is in the room, and the one before is out.
    virtual void OnJobEntered(JobProcess& process) = 0;
    virtual void OnJobCheckpoint(JobProcess& process, const std::string& blob) = 0;
    // Its caller waits in silence for a stage; a few times a second at most.
    virtual void OnJobStalled(JobProcess& process, const parley::job::v1::Stalled& stalled) = 0;
    // A process waits for TakeOver().
    virtual void OnJobPrepared(JobProcess& process) = 0;
    // It has paused, as asked by HandOver(). False: the broker cannot be told; it goes on.
    virtual bool OnJobHandedOver(JobProcess& process, const std::string& blob) = 0;
  };
  JobProcess(JobSurroundings& around, Host& host, supervise::JobForked forked);
  ~JobProcess() override;

  pid_t pid() const { return pid_; }
  bool assigned() const { return assigned_; }
  bool killed() const { return state_ == State::kKilled; }
  // It has started: it waits for its job, or has one.
  bool ready() const { return ready_; }
  // It did not start within its time.
  bool never_started() const { return never_started_; }
  const JobKey& key() const { return key_; }

  // How the room is to see the agent. Before Assign or Hold.
  void AcceptAs(JobAnswer answer) { accepted_ = std::move(answer); }
  // Gives a warm process its job.
  void Assign(const parley::dispatch::v1::Go& go);
  // Gives a warm process a job that another server still runs: it waits for TakeOver().
  void Hold(parley::dispatch::v1::Go go);
  // `paused`: when that one stopped; InfinitePast when it was lost. No effect unless held.
  void TakeOver(const std::string& checkpoint, absl::Time paused);
  // Somebody else is to take the job over: it pauses at the next quiet moment. Revoke() follows, or
  // GoOn(); after some seconds without either it goes on by itself.
  void HandOver();
  void GoOn();
  // Whether the broker was silent for as long as a lease. If the room was, too, the job is frozen.
  void SetBrokerLost(bool lost);
  // Asks the job to end. Not gone after `grace`: killed, and then `reason` is its outcome.
  void Shutdown(parley::job::v1::Shutdown::Why why, absl::Duration grace,
                parley::dispatch::v1::JobReason reason, std::string_view message);
  // Kills it. `reason` and `error` are its outcome unless it had one.
  void Kill(parley::dispatch::v1::JobReason reason, std::string_view error);
  // Kills it; the attempt has no outcome: somebody else has the job, or nobody wants it.
  void Revoke();
  // Deadlines, pings, memory. Four times a second while there are jobs.
  void Tick();
  // Its process was reaped: reads what it still said, leaves the room, and tells the outcome.
  JobOutcome Finish(const supervise::JobExited& exited);

 private:
  enum class State { kWarm, kStarting, kRunning, kStopping, kEnding, kKilled };

  // RoomSink
  void OnJoined(const parley::room::v1::Joined& joined) override;
  void OnJoinFailed(const parley::room::v1::SessionClosed& why) override;
  void OnRoomEvent(const parley::room::v1::RoomEvent& event) override;
  void OnRoomAudio(const parley::room::v1::SessionFrame& frame) override;

  void OnMessage(const parley::job::v1::FromJob& message);
  void OnJobMessage(const parley::job::v1::FromJob& message);
  void OnHello(const parley::job::v1::Hello& hello);
  void OnEntered();
  void OnEnded(const parley::job::v1::Ended& ended);
  void OnJoin(const parley::job::v1::Join& join);
  void OnAudio(const parley::job::v1::AudioOut& audio);
  void OnLog(const parley::job::v1::LogLine& line);
  void OnTurn(const parley::job::v1::TurnReport& turn);
  void OnStalled(const parley::job::v1::Stalled& stalled);
  void OnSocketClosed(const std::string& error);
  void OnReport();  // refused system calls: first where they wait, then each
  void OnRefusal();
  bool OnOutput();  // false: nothing more just now
  void LogOutput(std::string_view line);
  static constexpr char kOutput[] = "output";  // sources of lines, as in JobLogLine
  static constexpr char kLog[] = "log";
  static constexpr char kServer[] = "server";
  // A line into the job's log and into ours.
  void Say(log::Level level, const char* source, std::string_view message,
           const std::vector<log::Field>& fields = {});
  bool MaySay();
  void ReadDefinition(const std::string& definition_json);
  void StartSpan(const parley::dispatch::v1::Assignment& record);
  void RecordTurn(const parley::job::v1::TurnReport& turn);
  void CheckResources(int64_t now_us);
  // Notes where its threads are, then kills it.
  void KillWithStacks(parley::dispatch::v1::JobReason reason, std::string_view error);
  void Ping(int64_t now_us);
  void Send(parley::job::v1::ToJob& message);
  void Freeze(bool on);
  void CheckFreeze(int64_t now_us);
  void OnHandedOver(const parley::job::v1::HandedOver& handed);
  void OnTakenOver();
  void SetDeadline(absl::Duration in, parley::dispatch::v1::JobReason reason,
                   std::string_view error);
  JobOutcome OutcomeOf(const supervise::JobExited& exited) const;

  JobSurroundings& around_;
  Host& host_;
  const pid_t pid_;
  supervise::UniqueFd output_fd_;
  std::unique_ptr<event::FdWatcher> output_watcher_;
  std::string output_line_;
  supervise::UniqueFd report_fd_;
  std::unique_ptr<event::FdWatcher> report_watcher_;
  int refusals_ = 0;
  bool executed_ = false;
  std::unique_ptr<JobSocket> socket_;
  parley::job::v1::ToJob audio_in_;  // reused for each frame
  WakeRule wakes_;
  int64_t joined_us_ = 0;     // it came into its room; 0: never
  std::string own_identity_;  // in its room
  int64_t own_news_us_ = 0;   // since when news of itself wait; 0: none do
  log::Logger log_;
  trace::Span span_;  // of the attempt, once assigned
  State state_ = State::kWarm;
  bool ready_ = false;
  bool never_started_ = false;
  bool dumping_ = false;
  bool assigned_ = false;
  JobKey key_;
  std::string project_;
  std::string session_id_;
  int32_t attempt_ = 0;
  JobAnswer accepted_;
  std::string room_token_;
  std::string media_url_;
  MediaHub::Handle room_ = 0;
  std::shared_ptr<GatewayStreams> streams_;
  JobTools tools_;
  int64_t stall_told_us_ = 0;
  double line_budget_ = 0;  // lines it may write just now
  int64_t line_budget_us_ = 0;
  int64_t lines_dropped_ = 0;

  std::optional<parley::dispatch::v1::Go> held_;  // to be taken over
  bool taking_over_ = false;                      // until it is in the room
  int64_t taking_over_until_us_ = 0;              // or so long after it began
  absl::Time paused_ = absl::InfinitePast();      // by the server that had it
  int64_t hand_over_until_us_ = 0;                // 0: nobody takes it over from us
  bool broker_lost_ = false;
  bool frozen_ = false;
  int64_t room_heard_us_ = 0;

  int64_t assigned_us_ = 0;
  int64_t deadline_us_ = 0;  // 0 = none; then killed, with this outcome:
  parley::dispatch::v1::JobReason deadline_reason_ = parley::dispatch::v1::JOB_REASON_UNSPECIFIED;
  std::string deadline_error_;
  absl::Duration max_duration_ = absl::InfiniteDuration();
  int64_t max_duration_us_ = 0;  // when it is over; 0 = not yet running, or no limit
  int64_t memory_limit_ = 0;
  int64_t next_check_us_ = 0;
  bool memory_warned_ = false;
  double cpu_seconds_ = 0;  // as of the last check
  int64_t cpu_at_us_ = 0;
  int64_t busy_since_us_ = 0;  // a whole processor since then; 0 = not
  int64_t ping_sent_us_ = 0;
  int64_t heard_us_ = 0;  // last answer to a ping
  uint64_t ping_id_ = 0;

  bool revoked_ = false;
  std::optional<JobOutcome> ended_;   // as the job said
  std::optional<JobOutcome> killed_;  // as we decided
};

}  // namespace parley::agent
