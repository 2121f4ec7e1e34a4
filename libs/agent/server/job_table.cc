#include "agent/server/job_table.h"

#include <algorithm>

namespace parley::agent {
namespace {

using parley::dispatch::v1::Assignment;
using parley::dispatch::v1::JobState;
using parley::dispatch::v1::Report;
using parley::dispatch::v1::ResumeVerdict;
using parley::dispatch::v1::SessionReport;
using parley::dispatch::v1::WordVerdict;

constexpr int64_t kKeepSettledUs = 60'000'000;
constexpr int64_t kKeepGivenUpUs = 600'000'000;

bool IsTerminal(JobState state) {
  return state == parley::dispatch::v1::JOB_STATE_SUCCEEDED ||
         state == parley::dispatch::v1::JOB_STATE_FAILED ||
         state == parley::dispatch::v1::JOB_STATE_CANCELLED;
}

}  // namespace

JobTable::Entry* JobTable::Find(const JobKey& key) {
  const auto it = entries_.find(key);
  return it == entries_.end() ? nullptr : &it->second;
}

JobTable::Admission JobTable::Admit(const Assignment& record) {
  const JobKey key{record.job_id(), record.fencing_token()};
  if (entries_.contains(key)) return Admission::kKnown;
  const auto over = given_up_.find(key.job_id);
  if (over != given_up_.end() && key.token <= over->second.token) return Admission::kOver;
  if (active_ >= slots_) return Admission::kFull;
  Entry& entry = entries_[key];
  entry.report.set_job_id(key.job_id);
  entry.report.set_fencing_token(key.token);
  entry.report.set_status(record.take_over() ? ReportedJob::PREPARED : ReportedJob::ACCEPTED);
  *entry.report.mutable_record() = record;
  entry.report.mutable_record()->clear_checkpoint();  // the store has it; reports stay small
  ++active_;
  return Admission::kStart;
}

void JobTable::Started(const JobKey& key) {
  Entry* entry = Find(key);
  if (entry == nullptr || entry->report.status() != ReportedJob::ACCEPTED) return;
  entry->report.set_status(ReportedJob::RUNNING);
  entry->unanswered = Word::STARTED;
}

void JobTable::Prepared(const JobKey& key) {
  Entry* entry = Find(key);
  if (entry == nullptr || entry->report.status() != ReportedJob::PREPARED) return;
  entry->unanswered = Word::PREPARED;
}

void JobTable::TakingOver(const JobKey& key) {
  Entry* entry = Find(key);
  if (entry == nullptr || entry->report.status() != ReportedJob::PREPARED) return;
  entry->report.set_status(ReportedJob::ACCEPTED);
  entry->report.mutable_record()->set_take_over(false);
  entry->report.mutable_record()->set_resuming(true);
  entry->unanswered.reset();
}

void JobTable::Stopping(const JobKey& key) {
  Entry* entry = Find(key);
  if (entry != nullptr && entry->holds_slot) entry->report.set_status(ReportedJob::STOPPING);
}

void JobTable::Ended(const JobKey& key, JobReason reason, std::string_view error,
                     const SessionReport& session, int64_t now_us) {
  Entry* entry = Find(key);
  if (entry == nullptr || !entry->holds_slot) return;
  FreeSlot(*entry);
  entry->report.set_status(ReportedJob::ENDED);
  entry->report.set_reason(reason);
  entry->report.set_error(std::string(error));
  *entry->report.mutable_session() = session;
  entry->unanswered = Word::ENDED;
  GiveUp(key, now_us);
}

void JobTable::Released(const JobKey& key, int64_t now_us) {
  Entry* entry = Find(key);
  if (entry == nullptr || !entry->holds_slot) return;
  FreeSlot(*entry);
  entry->report.set_status(ReportedJob::RELEASED);
  entry->unanswered = Word::RELEASED;
  GiveUp(key, now_us);
}

void JobTable::FreeSlot(Entry& entry) {
  entry.holds_slot = false;
  --active_;
}

void JobTable::GiveUp(const JobKey& key, int64_t now_us) {
  GivenUp& given_up = given_up_[key.job_id];
  given_up.token = std::max(given_up.token, key.token);
  given_up.since_us = now_us;
}

JobTable::Order JobTable::OnVerdict(const WordVerdict& verdict, int64_t now_us) {
  Entry* entry = Find({verdict.job_id(), verdict.fencing_token()});
  if (entry == nullptr || verdict.outcome() == WordVerdict::HELD) return Order::kNone;
  // An answer to an earlier word than the one that is open now says nothing about that one,
  // unless the job is over.
  const bool about_open = entry->unanswered == verdict.kind();
  if (verdict.outcome() == WordVerdict::OK) {
    if (!about_open) return Order::kNone;
    entry->unanswered.reset();
    if (!entry->holds_slot) entry->settled_us = now_us;
    if (entry->report.status() == ReportedJob::ENDED && IsTerminal(verdict.state())) {
      entry->report.set_recorded(true);
      entry->report.set_recorded_state(verdict.state());
    }
    return Order::kNone;
  }
  entry->unanswered.reset();
  if (entry->holds_slot) return Order::kKill;  // stale, or recorded as over
  entry->settled_us = now_us;
  if (verdict.outcome() == WordVerdict::RECORDED) {
    entry->report.set_recorded(true);
    entry->report.set_recorded_state(verdict.state());
  }
  return Order::kNone;
}

JobTable::Order JobTable::OnResume(const ResumeVerdict& verdict, int64_t now_us) {
  Entry* entry = Find({verdict.job_id(), verdict.fencing_token()});
  if (entry == nullptr) return Order::kNone;
  if (!entry->holds_slot) {
    if (IsTerminal(verdict.recorded_state())) {
      entry->unanswered.reset();
      entry->report.set_recorded(true);
      entry->report.set_recorded_state(verdict.recorded_state());
      if (entry->settled_us == 0) entry->settled_us = now_us;
    }
    return Order::kNone;
  }
  switch (verdict.action()) {
    case ResumeVerdict::STOP:
      return Order::kStop;
    case ResumeVerdict::REVOKE:
      return Order::kKill;
    default:
      return Order::kNone;
  }
}

std::vector<JobTable::Word> JobTable::Unanswered() const {
  std::vector<Word> words;
  for (const auto& [key, entry] : entries_) {
    if (!entry.unanswered.has_value()) continue;
    Word& word = words.emplace_back();
    word.set_job_id(key.job_id);
    word.set_fencing_token(key.token);
    word.set_kind(*entry.unanswered);
    if (*entry.unanswered != Word::ENDED) continue;
    word.set_reason(entry.report.reason());
    word.set_error(entry.report.error());
    *word.mutable_session() = entry.report.session();
  }
  return words;
}

bool JobTable::has_unanswered() const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [](const auto& entry) { return entry.second.unanswered.has_value(); });
}

Report JobTable::MakeReport() const {
  Report report;
  for (const auto& [key, entry] : entries_) *report.add_jobs() = entry.report;
  return report;
}

std::vector<JobKey> JobTable::OlderThan(const JobKey& key) const {
  std::vector<JobKey> older;
  for (auto it = entries_.lower_bound({key.job_id, 0}); it != entries_.end() && it->first < key;
       ++it) {
    if (it->second.holds_slot) older.push_back(it->first);
  }
  return older;
}

std::vector<JobKey> JobTable::Active() const {
  std::vector<JobKey> active;
  for (const auto& [key, entry] : entries_) {
    if (entry.holds_slot) active.push_back(key);
  }
  return active;
}

std::vector<JobKey> JobTable::Running() const {
  std::vector<JobKey> running;
  for (const auto& [key, entry] : entries_) {
    if (entry.report.status() == ReportedJob::RUNNING) running.push_back(key);
  }
  return running;
}

void JobTable::Sweep(int64_t now_us) {
  std::erase_if(entries_, [now_us](const auto& entry) {
    return entry.second.settled_us > 0 && now_us - entry.second.settled_us > kKeepSettledUs;
  });
  std::erase_if(given_up_, [now_us](const auto& entry) {
    return now_us - entry.second.since_us > kKeepGivenUpUs;
  });
}

void JobTable::Clear() {
  entries_.clear();
  given_up_.clear();
  active_ = 0;
}

}  // namespace parley::agent
