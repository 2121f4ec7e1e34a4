#include "checker/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "checker/jobs.h"

namespace parley::checker {
namespace {

// A renewal counts from when the store took it, which is before its answer was written down.
constexpr int64_t kLeaseUs = 12'000'000;
constexpr int64_t kRenewSlackUs = 2'000'000;

void Break(Verdict& verdict, const char* invariant, std::string text) {
  verdict.violations.push_back({invariant, std::move(text)});
}

// ---- the stream itself ----

void CheckPositions(const History& history, Verdict& verdict) {
  std::map<std::string, const EventRecord*> last;
  for (const EventRecord& event : history.events) {
    const EventRecord*& before = last[event.pool];
    if (before != nullptr &&
        std::pair(event.epoch, event.number) <= std::pair(before->epoch, before->number)) {
      Break(verdict, "EveryEventOnce",
            fmt::format("position {}-{} of {} does not rise ({})", event.epoch, event.number,
                        event.where, before->where));
    }
    before = &event;
  }
}

// Leased jobs per worker and per project, at every moment of the stream.
void CheckLeases(const History& history, const std::map<std::string, int>& slots,
                 const Options& options, Verdict& verdict) {
  struct Held {
    std::string worker;
    std::string project;
  };
  std::map<std::string, Held> held;  // by job
  std::map<std::string, int> by_worker, by_project;
  std::map<uint64_t, std::string> owners;  // of tokens
  for (const EventRecord& event : history.events) {
    if (event.job.empty() || event.state.empty() || event.type == "dispatch_ended") continue;
    if (event.type == "job_migrating" || event.type == "job_kept") continue;  // still its holder's
    if (IsOfStage(event.type)) continue;
    if (const auto it = held.find(event.job); it != held.end()) {
      --by_worker[it->second.worker];
      --by_project[it->second.project];
      held.erase(it);
    }
    if (!IsLeased(event.state)) continue;
    held[event.job] = {event.worker, event.project};
    const int of_worker = ++by_worker[event.worker];
    const int of_project = ++by_project[event.project];
    const auto limit = slots.find(event.worker);
    if (limit != slots.end() && of_worker > limit->second) {
      Break(verdict, "SlotsNeverExceeded",
            fmt::format("{} held {} jobs in {} slots ({})", event.worker, of_worker, limit->second,
                        event.where));
    }
    const auto cap = options.caps.find(event.project);
    if (cap != options.caps.end() && of_project > cap->second) {
      Break(verdict, "CapNeverExceeded",
            fmt::format("project {} had {} jobs leased, its cap is {} ({})", event.project,
                        of_project, cap->second, event.where));
    }
    const auto owner = owners.try_emplace(event.token, event.job).first;
    if (owner->second != event.job) {
      Break(verdict, "TokenNeverRepeats",
            fmt::format("token {} was given to {} and to {} ({})", event.token, owner->second,
                        event.job, event.where));
    }
  }
}

// First come, first served. Of a job that was leased before, nothing is said: it keeps its place
// but may have to back off.
void CheckOrder(const History& history, Verdict& verdict) {
  struct Wait {
    size_t since = 0;  // place in the stream
    const EventRecord* created = nullptr;
  };
  std::map<std::string, Wait> fresh;                                    // by job
  std::map<std::string, std::map<size_t, const EventRecord*>> waiting;  // by queue
  for (size_t i = 0; i < history.events.size(); ++i) {
    const EventRecord& event = history.events[i];
    if (event.job.empty()) continue;
    const std::string queue = event.pool + "\n" + event.project + "\n" + event.agent;
    if (event.type == "dispatch_created") {
      fresh[event.job] = {i, &event};
      continue;
    }
    const auto job = fresh.find(event.job);
    if (job == fresh.end() || event.state.empty()) continue;
    if (event.state == "PENDING") {
      waiting[queue].emplace(job->second.since, job->second.created);
      continue;
    }
    std::map<size_t, const EventRecord*>& before = waiting[queue];
    before.erase(job->second.since);
    if (IsLeased(event.state) && !before.empty() && before.begin()->first < job->second.since) {
      const EventRecord& longest = *before.begin()->second;
      Break(verdict, "QueueOrderKept",
            fmt::format("job {} was leased while {} had waited longer ({}, {})", event.job,
                        longest.job, event.where, longest.where));
    }
    fresh.erase(job);
  }
}

// ---- agent servers ----

std::map<std::string, int> SlotsOf(const History& history) {
  std::map<std::string, int> slots;
  for (const WorkerRecord& record : history.workers) {
    if (record.what == WorkerRecord::What::kBegin) slots[record.worker] = record.slots;
  }
  return slots;
}

// (job, token) → when it was leased and by whom.
using Leases = std::map<std::pair<std::string, uint64_t>, const EventRecord*>;
Leases LeasesOf(const History& history) {
  Leases leases;
  for (const EventRecord& event : history.events) {
    if (!event.job.empty() && IsLeased(event.state)) {
      leases.try_emplace({event.job, event.token}, &event);
    }
  }
  return leases;
}

void CheckProcesses(const History& history, const std::map<std::string, int>& slots,
                    const Leases& leases, const Evidence& evidence, Verdict& verdict) {
  std::map<std::string, std::map<std::pair<std::string, uint64_t>, const WorkerRecord*>> running;
  for (const WorkerRecord& record : history.workers) {
    auto& here = running[record.worker];
    const std::pair key(record.job, record.token);
    if (record.what == WorkerRecord::What::kEnd || record.what == WorkerRecord::What::kRelease) {
      here.erase(key);
    }
    if (record.what != WorkerRecord::What::kStart) continue;
    ++verdict.started;
    const std::string name =
        fmt::format("job {} under token {} on {}", record.job, record.token, record.worker);
    const Attempt* attempt = evidence.Find(record.job, record.token);
    if (attempt->start != &record) {
      Break(verdict, "TokenNeverRepeats",
            fmt::format("{} started twice ({}, {})", name, attempt->start->where, record.where));
    }
    const auto lease = leases.find(key);
    if (lease == leases.end() || lease->second->worker != record.worker ||
        lease->second->time_us > record.time_us + kSlackUs) {
      Break(verdict, "StaleWriteRefused",
            fmt::format("{} started without a lease ({})", name, record.where));
    }
    here[key] = &record;
    const auto limit = slots.find(record.worker);
    if (limit != slots.end() && static_cast<int>(here.size()) > limit->second) {
      Break(verdict, "SlotsNeverExceeded",
            fmt::format("{} ran {} processes in {} slots ({})", record.worker, here.size(),
                        limit->second, record.where));
    }
  }
  for (const auto& [worker, processes] : running) {
    if (processes.empty() || evidence.ended_sessions.contains(worker)) continue;
    for (const auto& [key, start] : processes) {
      Break(verdict, "EveryJobEnds",
            fmt::format("job {} under token {}: {} never said that its process is gone ({})",
                        key.first, key.second, worker, start->where));
    }
  }
}

// A session may end when its process died or left, or after a lease of silence; not under the feet
// of one that is there and renews.
void CheckSessions(const History& history, const Evidence& evidence, Verdict& verdict) {
  std::map<std::string, const WorkerRecord*> begins, last_renewals;
  std::map<int, std::vector<const WorkerRecord*>> by_pid;
  for (const WorkerRecord& record : history.workers) {
    if (record.what == WorkerRecord::What::kRenew) last_renewals[record.worker] = &record;
    if (record.what != WorkerRecord::What::kBegin) continue;
    begins[record.worker] = &record;
    by_pid[record.pid].push_back(&record);
  }
  for (const auto& [worker, end] : evidence.ended_sessions) {
    const auto renewal = last_renewals.find(worker);
    const auto begin = begins.find(worker);
    if (renewal == last_renewals.end() || begin == begins.end()) continue;
    if (end->time_us >= renewal->second->time_us + kLeaseUs - kRenewSlackUs) continue;
    // Lived on: came back as a new worker, out of the same process.
    for (const WorkerRecord* again : by_pid[begin->second->pid]) {
      if (again->worker == worker || again->time_us < end->time_us) continue;
      Break(
          verdict, "NoNeedlessRestart",
          fmt::format("{}'s session was ended {:.1f} s after it renewed its lease, while it lived "
                      "({}, {})",
                      worker, static_cast<double>(end->time_us - renewal->second->time_us) / 1e6,
                      end->where, again->where));
      break;
    }
  }
}

// ---- rooms ----

class Doors {
 public:
  Doors(const Leases& leases, Verdict& verdict) : leases_(leases), verdict_(verdict) {}

  void Step(const RoomRecord& record) {
    switch (record.what) {
      case RoomRecord::What::kBegin:
      case RoomRecord::What::kKilled:
        for (auto& [job, inside] : inside_) {
          std::erase_if(inside, [&](const auto* old) { return old->server == record.server; });
        }
        std::erase_if(highest_, [&](const auto& it) { return it.first.first == record.server; });
        return;
      case RoomRecord::What::kRemove:
        std::erase_if(inside_[record.job], [&](const auto* old) {
          return old->server == record.server && old->token == record.token;
        });
        return;
      case RoomRecord::What::kRefuse:
        ++verdict_.refused;
        if (record.token > record.highest) {
          Break(verdict_, "ReasonIsTrue",
                fmt::format("job {}: token {} was refused though {} was the highest ({})",
                            record.job, record.token, record.highest, record.where));
        }
        return;
      case RoomRecord::What::kAdmit:
        return Admit(record);
    }
  }

 private:
  void Admit(const RoomRecord& record) {
    ++verdict_.admitted;
    std::vector<const RoomRecord*>& inside = inside_[record.job];
    for (const RoomRecord* other : inside) {
      if (other->token == record.token && other->server == record.server &&
          other->worker == record.worker) {
        continue;  // the same copy again, over a new stream
      }
      ++verdict_.doubled;
      Break(verdict_, "OneAdmitted",
            fmt::format("job {}: token {} was let in while token {} was in ({}, {})", record.job,
                        record.token, other->token, record.where, other->where));
    }
    uint64_t& highest = highest_[{record.server, record.job}];
    if (record.token < highest) {
      Break(verdict_, "OneAdmitted",
            fmt::format("job {}: token {} was let in after {} ({})", record.job, record.token,
                        highest, record.where));
    }
    highest = std::max(highest, record.token);
    const auto lease = leases_.find({record.job, record.token});
    if (lease == leases_.end() || lease->second->worker != record.worker ||
        lease->second->time_us > record.time_us + kSlackUs) {
      Break(verdict_, "StaleWriteRefused",
            fmt::format("job {}: token {} of {} was let in without a lease ({})", record.job,
                        record.token, record.worker, record.where));
    }
    inside = {&record};
  }

  const Leases& leases_;
  Verdict& verdict_;
  std::map<std::string, std::vector<const RoomRecord*>> inside_;     // by job
  std::map<std::pair<std::string, std::string>, uint64_t> highest_;  // of a server's run, by job
};

void CheckRooms(const History& history, const Leases& leases, Verdict& verdict) {
  std::vector<const RoomRecord*> records;
  for (const RoomRecord& record : history.rooms) records.push_back(&record);
  std::stable_sort(records.begin(), records.end(),
                   [](const auto* a, const auto* b) { return a->time_us < b->time_us; });
  Doors doors(leases, verdict);
  for (const RoomRecord* record : records) doors.Step(*record);
}

// ---- clients ----

// Dispatch → the event that ended its job, or null.
std::map<std::string, const EventRecord*> EndsOf(const Evidence& evidence) {
  std::map<std::string, const EventRecord*> ends;
  for (const auto& [job, events] : evidence.events) {
    for (const EventRecord* event : events) {
      const EventRecord*& end = ends[event->dispatch];
      if (IsTerminal(event->state)) end = event;
    }
  }
  return ends;
}

void CheckAcks(const History& history, const Evidence& evidence, Verdict& verdict) {
  const std::map<std::string, const EventRecord*> ends = EndsOf(evidence);
  std::map<std::string, std::string> by_key;
  std::map<std::string, const ClientRecord*> acked;
  int unknown = 0;
  for (const ClientRecord& record : history.clients) {
    if (record.what == ClientRecord::What::kGiveUp) ++unknown;
    if (record.what != ClientRecord::What::kAck) continue;
    acked.try_emplace(record.dispatch, &record);
    const auto [it, is_new] = by_key.try_emplace(record.key, record.dispatch);
    if (is_new || it->second == record.dispatch) continue;
    ++verdict.doubled;
    Break(verdict, "OneKeyOneDispatch",
          fmt::format("key {} made {} and {} ({})", record.key, it->second, record.dispatch,
                      record.where));
  }
  verdict.acked = static_cast<int>(acked.size());
  for (const auto& [dispatch, ack] : acked) {
    const auto end = ends.find(dispatch);
    if (end != ends.end() && end->second != nullptr) continue;
    ++verdict.lost;
    Break(verdict, "AckedDispatchKept",
          fmt::format("dispatch {} {} ({})", dispatch,
                      end == ends.end() ? "is in no event" : "has no end", ack->where));
  }
  for (const auto& [dispatch, end] : ends) {
    if (acked.contains(dispatch) || --unknown >= 0) continue;
    ++verdict.doubled;
    Break(verdict, "OneKeyOneDispatch",
          fmt::format("dispatch {} was made, but nobody was told of it", dispatch));
  }
  for (const ClientRecord& record : history.clients) {
    if (record.what != ClientRecord::What::kFinal) continue;
    const auto end = ends.find(record.dispatch);
    const EventRecord* event = end == ends.end() ? nullptr : end->second;
    if (event != nullptr && event->state == record.state && event->reason == record.reason)
      continue;
    Break(verdict, "AckedDispatchKept",
          fmt::format("dispatch {} is {}/{} as the API says, {}/{} as its events say ({})",
                      record.dispatch, record.state, record.reason,
                      event == nullptr ? "?" : event->state, event == nullptr ? "?" : event->reason,
                      record.where));
  }
}

void CheckDispatchEnds(const Evidence& evidence, Verdict& verdict) {
  for (const auto& [dispatch, ends] : evidence.ended_dispatches) {
    if (ends.size() == 1) continue;
    Break(
        verdict, "EveryEventOnce",
        fmt::format("dispatch {} ended {} times ({})", dispatch, ends.size(), ends.back()->where));
  }
  for (const auto& [dispatch, end] : EndsOf(evidence)) {
    if (end == nullptr || evidence.ended_dispatches.contains(dispatch)) continue;
    Break(
        verdict, "EveryEventOnce",
        fmt::format("dispatch {} has no event of its end, its job has ({})", dispatch, end->where));
  }
}

}  // namespace

Verdict Check(const History& history, const Options& options) {
  Verdict verdict;
  const Evidence evidence(history);
  const std::map<std::string, int> slots = SlotsOf(history);
  const Leases leases = LeasesOf(history);
  CheckPositions(history, verdict);
  verdict.jobs = static_cast<int>(evidence.events.size());
  for (const auto& [job, events] : evidence.events) CheckJob(job, evidence, verdict);
  CheckLeases(history, slots, options, verdict);
  if (options.one_queue) CheckOrder(history, verdict);
  CheckProcesses(history, slots, leases, evidence, verdict);
  CheckSessions(history, evidence, verdict);
  CheckRooms(history, leases, verdict);
  CheckDispatchEnds(evidence, verdict);
  CheckAcks(history, evidence, verdict);
  return verdict;
}

}  // namespace parley::checker
