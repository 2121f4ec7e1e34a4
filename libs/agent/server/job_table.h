#pragma once
// What this agent server knows of its jobs, and what of it the broker has still to hear. Pure: no
// clock, no I/O; processes are somebody else's.
#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "parley/dispatch/v1/worker.pb.h"

namespace parley::agent {

// One attempt of a job.
struct JobKey {
  std::string job_id;
  uint64_t token = 0;
  auto operator<=>(const JobKey&) const = default;  // NOLINT(modernize-use-nullptr): a false alarm
};

// Not thread-safe. Times are microseconds of a monotonic clock.
class JobTable {
 public:
  using ReportedJob = parley::dispatch::v1::ReportedJob;
  using Word = parley::dispatch::v1::Word;
  using JobReason = parley::dispatch::v1::JobReason;

  explicit JobTable(int slots) : slots_(slots) {}

  int slots() const { return slots_; }
  // Jobs that hold a slot: from their admission until their process is gone.
  int active() const { return active_; }

  enum class Admission {
    kStart,  // it is in the table now and holds a slot: start a process for it
    kKnown,  // it runs, or has run, already
    kOver,   // its token, or a newer one of the job, was given up here: never taken again
    kFull,   // no slot is free
  };
  Admission Admit(const parley::dispatch::v1::Assignment& record);

  // What happened to a job; unknown keys are ignored. Each makes the word that the broker must
  // hear, replacing the one before: words are cumulative.
  void Started(const JobKey& key);
  // Admitted to be taken over: its process waits; and: it was told to begin.
  void Prepared(const JobKey& key);
  void TakingOver(const JobKey& key);
  void Stopping(const JobKey& key);  // told to end; no word
  // Its process is gone. `session` may be empty.
  void Ended(const JobKey& key, JobReason reason, std::string_view error,
             const parley::dispatch::v1::SessionReport& session, int64_t now_us);
  // Given up without an outcome: revoked, or never started. Its process is gone.
  void Released(const JobKey& key, int64_t now_us);

  // What to do with the process of a job after an answer of the broker.
  enum class Order { kNone, kStop, kKill };
  Order OnVerdict(const parley::dispatch::v1::WordVerdict& verdict, int64_t now_us);
  Order OnResume(const parley::dispatch::v1::ResumeVerdict& verdict, int64_t now_us);

  // Words without an answer so far.
  std::vector<Word> Unanswered() const;
  bool has_unanswered() const { return !open_.empty(); }
  // Those of them that have not been said yet; they count as said at `now_us` from here on. Costs
  // as much as there are new ones, however many jobs the table holds.
  std::vector<Word> TakeUnsaid(int64_t now_us);
  // What was said at `until_us` or before and is still unanswered is to be said again.
  void SayAgain(int64_t until_us);
  // Everything, for Register and ReportRequest.
  parley::dispatch::v1::Report MakeReport() const;
  // Processes of the job with older tokens than this one: they are over.
  std::vector<JobKey> OlderThan(const JobKey& key) const;
  std::vector<JobKey> Active() const;
  // Those whose entrypoint runs and that were not told to end.
  std::vector<JobKey> Running() const;
  // Recorded ends that it still keeps, and how many it forgot since it was asked last.
  size_t settled() const { return settled_.size(); }
  size_t TakeSwept() { return std::exchange(swept_, 0); }
  // Forgets ends that were recorded 60 s ago, and tokens given up 10 min ago. Bounded all the same:
  // of recorded ends the newest 2 MiB are kept (what a report may carry; at 300 jobs a second that
  // is more than 10 s, and Redis loses 2 s at most), of tokens the newest 5,000 (at that rate more
  // than a lease).
  void Sweep(int64_t now_us);
  // A new worker id knows nothing of the old one's jobs.
  void Clear();

 private:
  struct Entry {
    ReportedJob report;
    std::optional<Word::Kind> unanswered;
    int64_t said_us = 0;  // when that was said; 0 = not yet
    bool holds_slot = true;
    int64_t settled_us = 0;  // when the broker answered the end; 0 = not yet
    size_t settled_bytes = 0;
  };
  struct GivenUp {
    uint64_t token = 0;
    int times = 0;  // in given_up_order_
  };
  // By hash of the job's id; two jobs with one hash cost a refusal, and one goes to another worker.
  // Kept ten times as long as anything else here, hence flat: small blocks between those of records
  // that have gone would hold on to all of their memory.
  using GivenUps = absl::flat_hash_map<uint64_t, GivenUp>;

  using Entries = std::map<JobKey, Entry>;

  Entry* Find(const JobKey& key);
  void FreeSlot(Entry& entry);
  void GiveUp(const JobKey& key, int64_t now_us);
  void Open(const JobKey& key, Entry& entry, Word::Kind kind);
  void Close(const JobKey& key, Entry& entry);
  // The broker knows of its end, and says so.
  void Settle(const JobKey& key, Entry& entry, int64_t now_us);
  static Word WordOf(const JobKey& key, const Entry& entry);

  const int slots_;
  int active_ = 0;
  Entries entries_;
  std::set<JobKey> open_;                  // unanswered
  std::set<JobKey> unsaid_;                // of those
  std::deque<Entries::iterator> settled_;  // oldest first
  size_t settled_bytes_ = 0;               // of their reports
  size_t swept_ = 0;
  GivenUps given_up_;
  std::vector<std::pair<uint64_t, int64_t>> given_up_order_;  // and when; oldest first, from
  size_t given_up_first_ = 0;
};

}  // namespace parley::agent
