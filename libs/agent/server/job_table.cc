#include "agent/server/job_table.h"

#include <algorithm>
#include <functional>

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
constexpr size_t kMaxSettledBytes = 2 << 20;
constexpr size_t kMaxGivenUp = 5000;

uint64_t HashOf(const std::string& job_id) { return std::hash<std::string>()(job_id); }

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
  const auto over = given_up_.find(HashOf(key.job_id));
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
  Open(key, *entry, Word::STARTED);
}

void JobTable::Prepared(const JobKey& key) {
  Entry* entry = Find(key);
  if (entry == nullptr || entry->report.status() != ReportedJob::PREPARED) return;
  Open(key, *entry, Word::PREPARED);
}

void JobTable::TakingOver(const JobKey& key) {
  Entry* entry = Find(key);
  if (entry == nullptr || entry->report.status() != ReportedJob::PREPARED) return;
  entry->report.set_status(ReportedJob::ACCEPTED);
  entry->report.mutable_record()->set_take_over(false);
  entry->report.mutable_record()->set_resuming(true);
  Close(key, *entry);
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
  Open(key, *entry, Word::ENDED);
  GiveUp(key, now_us);
}

void JobTable::Released(const JobKey& key, int64_t now_us) {
  Entry* entry = Find(key);
  if (entry == nullptr || !entry->holds_slot) return;
  FreeSlot(*entry);
  entry->report.set_status(ReportedJob::RELEASED);
  Open(key, *entry, Word::RELEASED);
  GiveUp(key, now_us);
}

void JobTable::FreeSlot(Entry& entry) {
  entry.holds_slot = false;
  --active_;
}

void JobTable::GiveUp(const JobKey& key, int64_t now_us) {
  const uint64_t hash = HashOf(key.job_id);
  GivenUp& given_up = given_up_[hash];
  given_up.token = std::max(given_up.token, key.token);
  ++given_up.times;
  given_up_order_.emplace_back(hash, now_us);
}

void JobTable::Open(const JobKey& key, Entry& entry, Word::Kind kind) {
  entry.unanswered = kind;
  entry.said_us = 0;
  open_.insert(key);
  unsaid_.insert(key);
}

void JobTable::Close(const JobKey& key, Entry& entry) {
  entry.unanswered.reset();
  open_.erase(key);
  unsaid_.erase(key);
}

void JobTable::Settle(const JobKey& key, Entry& entry, int64_t now_us) {
  if (entry.settled_us > 0) return;
  entry.settled_us = now_us;
  entry.report.clear_session();  // it has that
  settled_.push_back(entries_.find(key));
  entry.settled_bytes = entry.report.ByteSizeLong();
  settled_bytes_ += entry.settled_bytes;
}

JobTable::Order JobTable::OnVerdict(const WordVerdict& verdict, int64_t now_us) {
  const JobKey key{verdict.job_id(), verdict.fencing_token()};
  Entry* entry = Find(key);
  if (entry == nullptr || verdict.outcome() == WordVerdict::HELD) return Order::kNone;
  // An answer to an earlier word than the one that is open now says nothing about that one,
  // unless the job is over.
  const bool about_open = entry->unanswered == verdict.kind();
  if (verdict.outcome() == WordVerdict::OK && !about_open) return Order::kNone;
  Close(key, *entry);
  if (verdict.outcome() == WordVerdict::OK) {
    if (entry->report.status() == ReportedJob::ENDED && IsTerminal(verdict.state())) {
      entry->report.set_recorded(true);
      entry->report.set_recorded_state(verdict.state());
    }
    if (!entry->holds_slot) Settle(key, *entry, now_us);
    return Order::kNone;
  }
  if (entry->holds_slot) return Order::kKill;  // stale, or recorded as over
  if (verdict.outcome() == WordVerdict::RECORDED) {
    entry->report.set_recorded(true);
    entry->report.set_recorded_state(verdict.state());
  }
  Settle(key, *entry, now_us);
  return Order::kNone;
}

JobTable::Order JobTable::OnResume(const ResumeVerdict& verdict, int64_t now_us) {
  const JobKey key{verdict.job_id(), verdict.fencing_token()};
  Entry* entry = Find(key);
  if (entry == nullptr) return Order::kNone;
  if (!entry->holds_slot) {
    if (IsTerminal(verdict.recorded_state())) {
      Close(key, *entry);
      entry->report.set_recorded(true);
      entry->report.set_recorded_state(verdict.recorded_state());
      Settle(key, *entry, now_us);
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

JobTable::Word JobTable::WordOf(const JobKey& key, const Entry& entry) {
  Word word;
  word.set_job_id(key.job_id);
  word.set_fencing_token(key.token);
  word.set_kind(*entry.unanswered);
  if (*entry.unanswered != Word::ENDED) return word;
  word.set_reason(entry.report.reason());
  word.set_error(entry.report.error());
  *word.mutable_session() = entry.report.session();
  return word;
}

std::vector<JobTable::Word> JobTable::Unanswered() const {
  std::vector<Word> words;
  words.reserve(open_.size());
  for (const JobKey& key : open_) words.push_back(WordOf(key, entries_.at(key)));
  return words;
}

std::vector<JobTable::Word> JobTable::TakeUnsaid(int64_t now_us) {
  std::vector<Word> words;
  words.reserve(unsaid_.size());
  for (const JobKey& key : unsaid_) {
    Entry& entry = entries_.at(key);
    entry.said_us = now_us;
    words.push_back(WordOf(key, entry));
  }
  unsaid_.clear();
  return words;
}

void JobTable::SayAgain(int64_t until_us) {
  for (const JobKey& key : open_) {
    if (entries_.at(key).said_us <= until_us) unsaid_.insert(key);
  }
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
  while (!settled_.empty()) {
    const Entries::iterator oldest = settled_.front();
    const bool old = now_us - oldest->second.settled_us > kKeepSettledUs;
    if (!old && settled_bytes_ <= kMaxSettledBytes) break;
    settled_bytes_ -= oldest->second.settled_bytes;
    entries_.erase(oldest);
    settled_.pop_front();
    ++swept_;
  }
  for (; given_up_first_ < given_up_order_.size(); ++given_up_first_) {
    const auto [hash, since_us] = given_up_order_[given_up_first_];
    const bool many = given_up_order_.size() - given_up_first_ > kMaxGivenUp;
    if (now_us - since_us <= kKeepGivenUpUs && !many) break;
    const auto given_up = given_up_.find(hash);
    if (--given_up->second.times == 0) given_up_.erase(given_up);
  }
  if (given_up_first_ * 2 < given_up_order_.size()) return;
  given_up_order_.erase(given_up_order_.begin(),
                        given_up_order_.begin() + static_cast<std::ptrdiff_t>(given_up_first_));
  given_up_first_ = 0;
}

void JobTable::Clear() {
  entries_.clear();
  open_.clear();
  unsaid_.clear();
  settled_.clear();
  settled_bytes_ = 0;
  given_up_.clear();
  given_up_order_.clear();
  given_up_first_ = 0;
  active_ = 0;
}

}  // namespace parley::agent
