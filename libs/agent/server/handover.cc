// Planned hand-over: of jobs that this server gives away, because it drains or was asked to, and of
// jobs that it takes over. What is said to whom: HandOver in
// protos/parley/dispatch/v1/worker.proto.
#include <algorithm>
#include <utility>

#include "agent/server/agent_server.h"

namespace parley::agent {
namespace {

namespace dispatchv1 = parley::dispatch::v1;
using dispatchv1::ConnectRequest;
using dispatchv1::Go;

// So many at a time: each costs the other servers a start.
constexpr size_t kAtOnce = 16;
constexpr absl::Duration kLook = absl::Milliseconds(100);
constexpr int64_t kAskAgainUs = 1'000'000;
// Prepared (5 s), a quiet moment (10 s), started (5 s): then the answer is lost.
constexpr int64_t kAnswerUs = 21'000'000;

}  // namespace

// ---- of others' ----

void AgentServer::OnJobPrepared(JobProcess& process) {
  table_.Prepared(process.key());
  SayWords();
}

void AgentServer::OnTakeOver(const dispatchv1::TakeOver& take_over) {
  const JobKey key{take_over.job_id(), take_over.fencing_token()};
  table_.TakingOver(key);
  if (JobProcess* process = Running(key)) {
    const absl::Time paused = take_over.has_paused_at()
                                  ? absl::FromUnixSeconds(take_over.paused_at().seconds()) +
                                        absl::Nanoseconds(take_over.paused_at().nanos())
                                  : absl::InfinitePast();
    return process->TakeOver(take_over.checkpoint(), paused);
  }
  const auto begin = [&](Go& go) {  // no process yet: it begins as soon as it has one
    auto& record = *go.mutable_assignment();
    if (record.job_id() != key.job_id || record.fencing_token() != key.token) return;
    record.set_take_over(false);
    record.set_resuming(true);
    record.set_checkpoint(take_over.checkpoint());
  };
  for (Go& go : waiting_) begin(go);
  if (const auto asked = undecided_.find(key); asked != undecided_.end()) begin(asked->second);
}

// ---- of ours ----

void AgentServer::OnHandOver(const dispatchv1::HandOver& hand_over) {
  const JobKey key{hand_over.job_id(), hand_over.fencing_token()};
  JobProcess* process = Running(key);
  if (process == nullptr) return;
  if (!hand_over.cancel()) return process->HandOver();
  if (asked_us_.erase(key) > 0) ask_again_us_[key] = around_.loop->NowMicros() + kAskAgainUs;
  process->GoOn();
}

bool AgentServer::OnJobHandedOver(JobProcess& process, const std::string& blob) {
  ConnectRequest request;
  auto& checkpoint = *request.mutable_checkpoints()->add_checkpoints();
  checkpoint.set_job_id(process.key().job_id);
  checkpoint.set_fencing_token(process.key().token);
  checkpoint.set_blob(blob);
  checkpoint.set_final(true);
  const int64_t now_us = absl::ToUnixMicros(absl::Now());
  checkpoint.mutable_paused_at()->set_seconds(now_us / 1'000'000);
  checkpoint.mutable_paused_at()->set_nanos(static_cast<int32_t>(now_us % 1'000'000 * 1000));
  return broker_.Send(std::move(request));
}

void AgentServer::OnDrainDeadline() {
  if (table_.active() == 0) return;
  around_.log.Warn("the drain's deadline has passed: handing over", {{"jobs", table_.active()}});
  left_ = table_.Running().size();
  hand_over_until_us_ =
      around_.loop->NowMicros() + absl::ToInt64Microseconds(around_.config.hand_over_window);
  HandOverSome();
  if (drained_) return;
  drain_timer_.StartRepeating(kLook, [this] { HandOverSome(); });
}

void AgentServer::HandOverSome() {
  const int64_t now = around_.loop->NowMicros();
  const std::vector<JobKey> running = table_.Running();
  if (running.size() < left_) {  // it works: go on as long as it does
    hand_over_until_us_ = now + absl::ToInt64Microseconds(around_.config.hand_over_window);
  }
  left_ = running.size();
  if (now >= hand_over_until_us_) return EndWhatIsLeft();
  const auto stale = [&](const auto& asked) {
    const bool runs = std::find(running.begin(), running.end(), asked.first) != running.end();
    return !runs || now - asked.second > kAnswerUs;
  };
  std::erase_if(asked_us_, stale);
  ConnectRequest request;
  for (const JobKey& key : running) {
    if (asked_us_.size() >= kAtOnce) break;
    const auto again = ask_again_us_.find(key);
    if (asked_us_.contains(key) || (again != ask_again_us_.end() && now < again->second)) continue;
    asked_us_[key] = now;
    auto& job = *request.mutable_ask_hand_over()->add_jobs();
    job.set_job_id(key.job_id);
    job.set_fencing_token(key.token);
  }
  if (request.ask_hand_over().jobs().empty()) return;
  if (!broker_.Send(std::move(request))) asked_us_.clear();
}

void AgentServer::EndWhatIsLeft() {
  drain_timer_.Stop();
  for (auto& [pid, process] : processes_) {
    process->Shutdown(parley::job::v1::Shutdown::DRAIN, around_.config.stop_grace,
                      dispatchv1::JOB_REASON_DRAIN_DEADLINE, "the agent server is shutting down");
  }
}

}  // namespace parley::agent
