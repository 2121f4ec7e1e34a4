#pragma once
// The life of one job, as its events tell it.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "checker/checks.h"

namespace parley::checker {

// What worker logs say of one (job, token). Null: no such line.
struct Attempt {
  const WorkerRecord* start = nullptr;
  const WorkerRecord* enter = nullptr;
  const WorkerRecord* end = nullptr;  // kEnd or kRelease
};

// Everything a job's events are held against. Built once from a history, which must outlive it.
struct Evidence {
  explicit Evidence(const History& history);

  const Attempt* Find(const std::string& job, uint64_t token) const;
  // The first terminate that a client was about to ask for, of a dispatch or job. Null: none.
  const ClientRecord* Terminated(const std::string& dispatch, const std::string& job) const;
  // Whether the worker's session had ended before `event` in its pool's stream.
  bool SessionEndedBefore(const std::string& worker, const EventRecord& event) const;

  std::map<std::string, std::vector<const EventRecord*>> events;  // by job, in order
  std::map<std::string, std::vector<const EventRecord*>> ended_dispatches;
  std::map<std::string, const EventRecord*> ended_sessions;  // by worker
  std::map<std::pair<std::string, uint64_t>, Attempt> attempts;
  std::map<std::string, std::vector<const ClientRecord*>> terminates;  // by dispatch or job
  std::map<std::string, const ClientRecord*> asks;                     // by dispatch that was acked
};

// An event's clock counts whole milliseconds.
inline constexpr int64_t kSlackUs = 2'000;

bool IsTerminal(std::string_view state);
bool IsLeased(std::string_view state);
// Of an event that tells of a job's conversation: the job is as it was.
bool IsOfStage(std::string_view type);

// Replays one job. Adds to `verdict`: violations, ends, leases, restarts.
void CheckJob(const std::string& job, const Evidence& evidence, Verdict& verdict);

}  // namespace parley::checker
