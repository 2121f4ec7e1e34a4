#pragma once
// The records of dispatching. Plain values; times are the store's clock.
#include <absl/time/time.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "job/selector.h"
#include "job/states.h"

namespace parley::job {

// The part of a dispatch that its asker decides, resolved to a pool.
struct DispatchSpec {
  std::string project;
  std::string agent_name;
  std::string room;
  std::string room_sid;
  std::string metadata;
  std::map<std::string, std::string> attributes;
  RestartPolicy restart_policy = RestartPolicy::kOnFailure;
  int priority = 5;  // 0 to 9, 9 first
  Type type = Type::kRoom;
  std::string participant_identity;  // of dispatches that stay: only this one; "" = anybody
  Selector selector;
  bool while_present = false;   // there while a person is; many jobs
  bool unique_in_room = false;  // one such dispatch of the agent at a time
  std::string idempotency_key;
  std::string pool;
  std::string agent_id;        // of the definition; empty for programs
  uint64_t agent_version = 0;  // pinned for all attempts
  std::string session_id;      // AS_…
  std::string traceparent;

  // Any agent server of the pool that runs definitions may take it, else workers of the name.
  bool configured() const { return !agent_id.empty(); }
  // It has as many jobs as it takes, until it is deleted or its room closes.
  bool stays() const { return type != Type::kRoom || while_present; }
};

// What the operator grants a project in each pool. 0 = any number.
struct ProjectLimits {
  std::string project;
  int weight = 1;      // 1 to 1000: its share when projects compete for slots
  int max_jobs = 0;    // that workers hold at once; more wait
  int max_queued = 0;  // that wait; more are refused

  bool operator==(const ProjectLimits&) const = default;
};

struct PoolLimits {
  std::vector<ProjectLimits> projects;  // others: weight 1, no limits
  int max_jobs = 0;                     // of all projects; 0 = as many as there are slots
  int max_queued = 0;                   // 0 = any number
  bool pack = false;  // of two workers the fuller one gets the job, so that others fall empty

  bool operator==(const PoolLimits&) const = default;
};

struct NewDispatch : DispatchSpec {
  std::string dispatch_id;  // chosen before the call, so that a retry is the same create
  std::string job_id;
  std::string request_hash;  // of everything that makes a request the same
  absl::Duration queue_deadline = absl::Seconds(60);
  absl::Time not_before = absl::InfinitePast();
};

struct Job {
  std::string id;
  std::string dispatch_id;
  std::string project;
  std::string agent_name;
  std::string room;
  State state = State::kUnspecified;
  Reason reason = Reason::kUnspecified;           // terminal states only
  Reason previous_reason = Reason::kUnspecified;  // why the attempt before this one was lost
  int attempt = 0;                                // of leases that started, from 1
  uint64_t fencing_token = 0;
  std::string worker_id;
  Type type = Type::kRoom;
  std::string participant_identity;
  std::string pool;
  std::string agent_id;
  uint64_t agent_version = 0;
  std::string session_id;
  std::string error;  // one line for people
  bool stop_requested = false;
  std::string next_worker_id;                   // to whom it is being handed over; empty: to nobody
  uint64_t next_token = 0;                      // and under which token
  bool handed_over = false;                     // at least once
  absl::Time paused_at = absl::InfinitePast();  // by its last holder, to be handed over
  absl::Time create_time = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();  // of the queue
  absl::Time start_time = absl::InfinitePast();  // InfinitePast: not yet
  absl::Time end_time = absl::InfinitePast();
  absl::Time update_time = absl::InfinitePast();
};

struct Dispatch : DispatchSpec {
  std::string id;
  bool ended = false;
  absl::Time create_time = absl::InfinitePast();
  absl::Time end_time = absl::InfinitePast();  // InfinitePast: not yet
  std::vector<Job> jobs;
};

// Everything about one attempt of a job. Also what a worker's report brings, so that a store that
// lost the job can rebuild it.
struct Assignment : DispatchSpec {
  std::string job_id;
  std::string dispatch_id;
  uint64_t fencing_token = 0;
  int attempt = 0;
  bool resuming = false;                        // it ran before
  bool take_over = false;                       // another worker still runs it
  absl::Time paused_at = absl::InfinitePast();  // by that one, before the last checkpoint
  std::string checkpoint;                       // its last one; may be empty
  absl::Time create_time = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();
  State state = State::kUnspecified;
};

enum class ReportedStatus {
  kOffered = 1,
  kAccepted = 2,
  kRunning = 3,
  kStopping = 4,
  kEnded = 5,
  kReleased = 6,
  kPrepared = 7,  // waits to take over
};

struct ReportedJob {
  std::string job_id;
  uint64_t fencing_token = 0;
  ReportedStatus status = ReportedStatus::kRunning;
  Reason reason = Reason::kUnspecified;  // kEnded
  std::string error;
  bool recorded = false;  // a broker answered the end already
  State recorded_state = State::kUnspecified;
  Assignment record;
};

// Who is in a room at one moment; complete.
struct RoomPresence {
  struct Person {
    std::string identity;
    bool publishing = false;
  };
  std::string project;
  std::string room;
  std::string room_sid;
  uint64_t version = 0;  // rises with each report; older ones change nothing
  bool closed = false;
  std::vector<Person> people;
};

// A job that is over: its room must let in no token below `lowest_token`.
struct Fence {
  std::string job_id;
  uint64_t lowest_token = 0;
  std::string project;
  std::string room;
  absl::Time since = absl::InfinitePast();
};

// What an agent server says of itself when it connects.
struct Registration {
  std::string worker_id;     // AW_…
  std::string instance;      // secret of the process
  uint64_t connect_seq = 0;  // rises with each connect, from 1
  std::string project;       // only its jobs; empty (services) = of any project
  std::string pool;
  bool serves_configured = false;
  std::vector<std::string> agent_names;
  int slots = 1;
  std::string version;
  std::string region;
  std::map<std::string, std::string> labels;
  std::string deployment;
  bool accepts_all = false;  // a match assigns at once
  std::string hostname;
  double load = 0;
  double load_threshold = 0;  // above it the worker gets no job
  bool accepting = true;      // until its first heartbeat says otherwise
  std::vector<ReportedJob> report;
};

struct ResumeVerdict {
  enum class Action { kKeep = 1, kGo = 2, kStop = 3, kRevoke = 4 };
  std::string job_id;
  uint64_t fencing_token = 0;
  Action action = Action::kKeep;
  State recorded_state = State::kUnspecified;  // terminal: the worker may forget the end
};

struct Word {
  std::string job_id;
  uint64_t fencing_token = 0;
  WordKind kind = WordKind::kAccepted;
  Reason reason = Reason::kUnspecified;  // kEnded
  std::string error;
  bool final = false;  // kRejected: ask nobody else
};

// What is kept of one session: found by id alone, whatever its pool.
struct SessionRecord {
  std::string id;  // AS_…
  std::string project;
  std::string room;
  std::string dispatch_id;
  std::string agent_name;
  std::string agent_id;
  uint64_t agent_version = 0;
  absl::Time create_time = absl::InfinitePast();
  absl::Time start_time = absl::InfinitePast();
  absl::Time end_time = absl::InfinitePast();
  std::string report;  // serialized by the edge: usage and transcript; opaque here
};

struct WordVerdict {
  // kOk: taken, or taken before; an end may be forgotten by the worker. kStale: stop that copy.
  // kRecorded: the job is terminal. kHeld: the store is recovering, say it again.
  enum class Outcome { kOk = 1, kStale = 2, kRecorded = 3, kHeld = 4 };
  std::string job_id;
  uint64_t fencing_token = 0;
  WordKind kind = WordKind::kAccepted;
  Outcome outcome = Outcome::kOk;
  uint64_t newest_token = 0;
  State state = State::kUnspecified;
  Reason reason = Reason::kUnspecified;
  // What there is to keep of the session that an ended job was, without the worker's report.
  std::optional<SessionRecord> session;
};

struct Renewal {
  std::string worker_id;
  uint64_t connect_seq = 0;
  double load = 0;  // 0 to 1
  bool accepting = true;
};

struct Worker {
  std::string id;
  std::string project;
  std::string pool;
  std::vector<std::string> agent_names;
  bool serves_configured = false;
  int slots = 0;
  int slots_used = 0;
  double load = 0;
  double load_threshold = 0;
  bool draining = false;
  bool accepting = true;
  std::string version;
  std::string region;
  std::map<std::string, std::string> labels;
  std::string deployment;
  std::string hostname;
  std::string state;  // LIVE, QUIET, DRAINING
  std::vector<std::string> job_ids;
  absl::Duration heartbeat_age = absl::ZeroDuration();
  absl::Time register_time = absl::InfinitePast();
};

// Something a worker must be told. The job's record is the truth, this is a hint.
struct Message {
  // kHandOver, kGoOn go to who has the job, with its token; kTakeOver to its successor.
  enum class Kind { kOffer, kGo, kStop, kRevoke, kDrain, kReplaced, kHandOver, kGoOn, kTakeOver };
  Kind kind = Kind::kOffer;
  std::string pool;
  std::string worker_id;
  std::string job_id;
  uint64_t fencing_token = 0;  // kReplaced: a connect_seq; kDrain: ms until hand-over, 0 = default
};

// One line of a pool's append-only stream.
struct Event {
  std::string position;  // "<epoch>-<n>", orders the events of a pool
  std::string pool;
  absl::Time time = absl::InfinitePast();
  std::string type;
  std::string project;
  std::string dispatch_id;
  std::string job_id;
  std::string worker_id;
  std::string room;
  std::string agent_name;
  State state = State::kUnspecified;
  Reason reason = Reason::kUnspecified;
  uint64_t fencing_token = 0;
  int attempt = 0;
  std::string room_sid;              // events of rooms only
  std::string participant_identity;  // who joined or left
};

}  // namespace parley::job
