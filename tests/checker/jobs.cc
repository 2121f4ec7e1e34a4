#include "checker/jobs.h"

#include <fmt/format.h>

#include <set>

namespace parley::checker {
namespace {

constexpr int64_t kStartTimeoutUs = 10'000'000;

const std::map<std::string, std::set<std::string>>& ReasonsOf() {
  static const auto* reasons = new std::map<std::string, std::set<std::string>>{
      {"SUCCEEDED", {"PARTICIPANTS_LEFT", "SHUTDOWN", "ROOM_CLOSED"}},
      {"CANCELLED", {"TERMINATED"}},
      {"FAILED",
       {"NO_WORKER_BEFORE_DEADLINE", "REJECTED", "START_TIMEOUT", "WORKER_LOST", "PROCESS_CRASHED",
        "OUT_OF_MEMORY", "HUNG", "LIMIT_EXCEEDED", "ENTRYPOINT_ERROR", "DRAIN_DEADLINE",
        "DEFINITION_INVALID"}}};
  return *reasons;
}

// Which states may follow which. Written from the protocol's table, not from the broker's.
const std::map<std::string, std::set<std::string>>& Next() {
  static const auto* next = new std::map<std::string, std::set<std::string>>{
      {"", {"PENDING"}},
      // RUNNING: taken back by the worker that still has it. SUCCEEDED: it had ended there.
      {"PENDING", {"OFFERED", "ASSIGNED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"}},
      {"OFFERED", {"PENDING", "ASSIGNED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"}},
      {"ASSIGNED", {"PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"}},
      // RUNNING or ASSIGNED again: handed over, under a higher token.
      {"RUNNING", {"PENDING", "ASSIGNED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"}}};
  return *next;
}

// One job's events, one after another.
class Replay {
 public:
  Replay(const std::string& job, const Evidence& evidence, Verdict& verdict)
      : job_(job), evidence_(evidence), verdict_(verdict) {}

  void Run() {
    for (const EventRecord* event : evidence_.events.at(job_)) Step(*event);
    if (IsTerminal(state_)) {
      ++verdict_.ends[state_ + "/" + reason_];
    } else {
      Break("EveryJobEnds", nullptr, fmt::format("is still {}", state_.empty() ? "new" : state_));
    }
    verdict_.leases += leases_;
    if (leases_ > 1) verdict_.restarts += leases_ - 1;
  }

 private:
  void Break(const char* invariant, const EventRecord* event, std::string_view what) {
    verdict_.violations.push_back(
        {invariant, fmt::format("job {} {}{}", job_, what,
                                event == nullptr ? "" : " (" + event->where + ")")});
  }

  void Step(const EventRecord& event) {
    if (event.type == "dispatch_created") {
      if (created_us_ != 0) Break("EveryEventOnce", &event, "was created twice");
      created_us_ = event.time_us;
      return;
    }
    if (created_us_ == 0) Break("EveryEventOnce", &event, "has events before it was created");
    if (created_us_ == 0) created_us_ = event.time_us;
    // A successor is prepared, or was in vain: the job is still its holder's.
    if (event.type == "job_migrating" || event.type == "job_kept") return;
    if (IsOfStage(event.type)) return;
    if (IsTerminal(state_)) {
      return Break("TerminalIsFinal", &event, fmt::format("was {}, then {}", state_, event.state));
    }
    CheckChange(event);
    CheckToken(event);
    if (IsTerminal(event.state)) {
      CheckReason(event, event.reason);
    } else if (event.state == "PENDING" && IsLeased(state_)) {
      CheckReason(event, event.reason);
      CheckRestart(event);
    }
    state_ = event.state;
    reason_ = event.reason;
    since_us_ = event.time_us;
    if (IsLeased(state_)) worker_ = event.worker;
  }

  void CheckChange(const EventRecord& event) {
    const auto it = Next().find(state_);
    if (it == Next().end() || !it->second.contains(event.state)) {
      Break("LegalStateChange", &event, fmt::format("went from {} to {}", state_, event.state));
    }
    if (state_ == "RUNNING" && IsLeased(event.state) && event.token <= token_) {
      Break("LegalStateChange", &event, fmt::format("was RUNNING, then {} again", event.state));
    }
    if (!IsTerminal(event.state)) return;
    const auto reasons = ReasonsOf().find(event.state);
    if (reasons == ReasonsOf().end() || !reasons->second.contains(event.reason)) {
      Break("LegalStateChange", &event, fmt::format("is {} for \"{}\"", event.state, event.reason));
    }
  }

  void CheckToken(const EventRecord& event) {
    if (event.token < token_) {
      return Break("StaleWriteRefused", &event,
                   fmt::format("went to {} under token {}, after {} was given out", event.state,
                               event.token, token_));
    }
    if (event.token == token_) {
      // Taken back, or the same lease going on: by the same worker.
      if (IsLeased(event.state) && event.token != 0 && event.worker != worker_) {
        Break("StaleWriteRefused", &event,
              fmt::format("went to {} by {}, but token {} is {}'s", event.state, event.worker,
                          event.token, worker_));
      }
      if (event.token == 0 && IsLeased(event.state)) {
        Break("TokenNeverRepeats", &event, "was leased without a token");
      }
      return;
    }
    if (!IsLeased(event.state)) {
      return Break(
          "StaleWriteRefused", &event,
          fmt::format("went to {} under token {}, which no lease had", event.state, event.token));
    }
    if (IsLeased(state_) && state_ != "RUNNING") {
      Break("NoNeedlessRestart", &event,
            fmt::format("was leased to {} while {} under token {}", event.worker, state_, token_));
    }
    token_ = event.token;
    ++leases_;
  }

  // The attempt that is over was over for a reason that another log knows.
  void CheckReason(const EventRecord& event, const std::string& reason) {
    const std::string wrong = WhyNot(event, reason);
    if (!wrong.empty()) {
      Break("ReasonIsTrue", &event,
            fmt::format("went to {} for \"{}\", but {}", event.state, reason, wrong));
    }
  }

  // "" when the reason has its cause.
  std::string WhyNot(const EventRecord& event, const std::string& reason) const {
    const Attempt* attempt = evidence_.Find(job_, token_);
    if (reason.empty()) {
      return state_ == "RUNNING" ? "a running job is not lost without one" : "";
    }
    if (reason == "NO_WORKER_BEFORE_DEADLINE") return WhyNotLate(event);
    if (reason == "REJECTED") return IsLeased(state_) ? "" : "nobody had it to reject";
    if (reason == "TERMINATED") {
      const ClientRecord* asked = evidence_.Terminated(event.dispatch, job_);
      return asked != nullptr && asked->time_us <= event.time_us + kSlackUs
                 ? ""
                 : "no client had asked for it";
    }
    if (reason == "WORKER_LOST") return WhyNotLost(event, attempt);
    if (reason == "START_TIMEOUT" && state_ == "ASSIGNED" &&
        event.time_us >= since_us_ + kStartTimeoutUs - kSlackUs) {
      return "";
    }
    if (attempt == nullptr || attempt->end == nullptr) return "no worker saw that attempt end";
    if (attempt->end->time_us > event.time_us + kSlackUs) return "its process ended later";
    if (attempt->end->reason != reason) {
      return fmt::format("its worker saw it end for \"{}\" ({})", attempt->end->reason,
                         attempt->end->where);
    }
    return "";
  }

  std::string WhyNotLate(const EventRecord& event) const {
    if (state_ != "PENDING") return "it was not waiting";
    const auto ask = evidence_.asks.find(event.dispatch);
    if (ask == evidence_.asks.end() || ask->second->wait_ms == 0) return "";
    return event.time_us + kSlackUs >= created_us_ + ask->second->wait_ms * 1000
               ? ""
               : "its deadline had not come";
  }

  std::string WhyNotLost(const EventRecord& event, const Attempt* attempt) const {
    if (evidence_.SessionEndedBefore(worker_, event)) return "";
    if (attempt == nullptr || attempt->start == nullptr) return "";  // it never arrived there
    if (attempt->start->time_us > event.time_us) return "";
    if (attempt->end != nullptr && attempt->end->time_us <= event.time_us + kSlackUs) return "";
    return fmt::format("{} lived and had it", worker_);
  }

  // It waits for its next attempt: the one before must be over, or its worker's session.
  void CheckRestart(const EventRecord& event) {
    if (state_ != "RUNNING") return;  // not yet said to have started: the token fences it
    const Attempt* attempt = evidence_.Find(job_, token_);
    const bool over = attempt != nullptr && attempt->end != nullptr &&
                      attempt->end->time_us <= event.time_us + kSlackUs;
    if (over || evidence_.SessionEndedBefore(worker_, event)) return;
    if (attempt == nullptr || attempt->start == nullptr) return;  // reported elsewhere
    Break("NoNeedlessRestart", &event,
          fmt::format("was given up while {} ran it under token {}", worker_, token_));
  }

  const std::string& job_;
  const Evidence& evidence_;
  Verdict& verdict_;
  std::string state_;
  std::string reason_;
  std::string worker_;
  uint64_t token_ = 0;
  int64_t created_us_ = 0;
  int64_t since_us_ = 0;
  int leases_ = 0;
};

}  // namespace

bool IsTerminal(std::string_view state) {
  return state == "SUCCEEDED" || state == "FAILED" || state == "CANCELLED";
}

bool IsOfStage(std::string_view type) {
  return type.starts_with("job_slow_") || type.starts_with("job_gave_up_");
}

bool IsLeased(std::string_view state) {
  return state == "OFFERED" || state == "ASSIGNED" || state == "RUNNING";
}

Evidence::Evidence(const History& history) {
  for (const EventRecord& event : history.events) {
    if (event.type == "dispatch_ended") {
      ended_dispatches[event.dispatch].push_back(&event);
    } else if (event.type == "worker_ended") {
      ended_sessions.try_emplace(event.worker, &event);
    } else if (!event.job.empty()) {
      events[event.job].push_back(&event);
    }
  }
  for (const WorkerRecord& record : history.workers) {
    if (record.job.empty()) continue;
    Attempt& attempt = attempts[{record.job, record.token}];
    switch (record.what) {
      case WorkerRecord::What::kStart:
        if (attempt.start == nullptr) attempt.start = &record;
        break;
      case WorkerRecord::What::kEnter:
        attempt.enter = &record;
        break;
      case WorkerRecord::What::kEnd:
      case WorkerRecord::What::kRelease:
        if (attempt.end == nullptr) attempt.end = &record;
        break;
      default:
        break;
    }
  }
  std::map<std::string, const ClientRecord*> by_key;
  for (const ClientRecord& record : history.clients) {
    if (record.what == ClientRecord::What::kAsk) by_key.try_emplace(record.key, &record);
    if (record.what == ClientRecord::What::kTerminate) {
      terminates[record.job.empty() ? record.dispatch : record.job].push_back(&record);
    }
    if (record.what != ClientRecord::What::kAck) continue;
    if (const auto ask = by_key.find(record.key); ask != by_key.end()) {
      asks.try_emplace(record.dispatch, ask->second);
    }
  }
}

const Attempt* Evidence::Find(const std::string& job, uint64_t token) const {
  const auto it = attempts.find({job, token});
  return it == attempts.end() ? nullptr : &it->second;
}

const ClientRecord* Evidence::Terminated(const std::string& dispatch,
                                         const std::string& job) const {
  for (const std::string& id : {dispatch, job}) {
    const auto it = terminates.find(id);
    if (it != terminates.end()) return it->second.front();
  }
  return nullptr;
}

bool Evidence::SessionEndedBefore(const std::string& worker, const EventRecord& event) const {
  const auto it = ended_sessions.find(worker);
  if (it == ended_sessions.end()) return false;
  return std::pair(it->second->epoch, it->second->number) < std::pair(event.epoch, event.number);
}

void CheckJob(const std::string& job, const Evidence& evidence, Verdict& verdict) {
  Replay(job, evidence, verdict).Run();
}

}  // namespace parley::checker
