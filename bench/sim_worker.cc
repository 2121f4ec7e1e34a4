#include "sim_worker.h"

#include <absl/time/clock.h>

#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "rpc/channel.h"

namespace parley::bench {
namespace {

namespace v1 = dispatch::v1;

constexpr size_t kOutbox = 100'000;
constexpr int kWordsPerMessage = 200;
constexpr int kChannels = 4;
constexpr int kBeatSlices = 20;  // of a second, so that beats do not come all at once

void AddWord(v1::ConnectRequest& request, const v1::Go& go, v1::Word::Kind kind) {
  v1::Word& word = *request.mutable_words()->add_words();
  word.set_job_id(go.job_id());
  word.set_fencing_token(go.fencing_token());
  word.set_kind(kind);
  if (kind == v1::Word::ENDED) word.set_reason(v1::JOB_REASON_SHUTDOWN);
}

}  // namespace

SimWorker::SimWorker(const std::shared_ptr<grpc::Channel>& channel, const std::string& token,
                     const std::string& agent_name, int slots, Hooks hooks)
    : stub_(v1::WorkerService::NewStub(channel)),
      token_(token),
      worker_id_("AW_" + RandomBase62(14)),
      instance_(RandomHex(16)),
      hooks_(std::move(hooks)) {
  Stream::Options options;
  options.bearer = token;
  options.outbox_limit = kOutbox;
  options.on_message = [this](const v1::ConnectResponse& message) { OnMessage(message); };
  options.on_done = [this](const absl::Status& status) {
    MutexLock lock(&mutex_);
    done_ = true;
    status_ = status;
    changed_.SignalAll();
  };
  stream_ = Stream::Open(
      [this](auto* context, auto* reactor) { stub_->async()->Connect(context, reactor); },
      std::move(options));
  v1::ConnectRequest first;
  v1::Register& request = *first.mutable_register_();
  request.set_worker_id(worker_id_);
  request.set_instance(instance_);
  request.set_connect_seq(1);
  if (agent_name.empty()) {
    request.set_serves_configured(true);
  } else {
    request.set_pool(agent_name);
    request.add_agent_names(agent_name);
  }
  request.set_slots(slots);
  request.set_accepts_all(true);
  request.set_hostname("bench");
  stream_->Send(std::move(first));
}

SimWorker::~SimWorker() {
  stream_->Cancel();
  {
    MutexLock lock(&mutex_);
    while (!done_) changed_.Wait(&mutex_);
  }
  grpc::ClientContext context;
  rpc::SetBearer(context, token_);
  rpc::SetTimeout(context, absl::Seconds(5));
  v1::ReportDeathRequest request;
  request.set_worker_id(worker_id_);
  request.set_instance(instance_);
  request.set_connect_seq(1);
  v1::ReportDeathResponse response;
  (void)stub_->ReportDeath(&context, request, &response);  // else the lease ends it
}

absl::Status SimWorker::WaitRegistered() {
  const absl::Time until = absl::Now() + absl::Seconds(60);
  MutexLock lock(&mutex_);
  while (!registered_) {
    if (done_) return Annotate(status_, "a simulated worker's stream ended");
    if (absl::Now() > until) return DeadlineExceeded("a simulated worker was not registered");
    changed_.WaitFor(&mutex_, absl::Milliseconds(200));
  }
  return absl::OkStatus();
}

void SimWorker::Beat() {
  v1::ConnectRequest request;
  {
    MutexLock lock(&mutex_);
    request.mutable_heartbeat()->set_seq(++beats_);
  }
  request.mutable_heartbeat()->set_load(0.1);
  request.mutable_heartbeat()->set_accepting(true);
  stream_->Send(std::move(request));
}

void SimWorker::EndMore() {
  MutexLock lock(&mutex_);
  while (!running_on_.empty() && hooks_.may_end()) {
    AddWord(words_, running_on_.back(), v1::Word::ENDED);
    running_on_.pop_back();
  }
  SendWords();
}

void SimWorkers::EndMore() {
  for (const auto& worker : workers_) worker->EndMore();
}

void SimWorker::SendWords() {
  if (words_out_ || words_.words().words_size() == 0) return;
  words_out_ = true;
  v1::ConnectRequest request;
  auto& waiting = *words_.mutable_words()->mutable_words();
  auto& going = *request.mutable_words()->mutable_words();
  if (waiting.size() <= kWordsPerMessage) {
    going.Swap(&waiting);
  } else {
    for (int i = 0; i < kWordsPerMessage; ++i) *going.Add() = waiting[i];
    waiting.DeleteSubrange(0, kWordsPerMessage);
  }
  stream_->Send(std::move(request));
}

void SimWorker::OnMessage(const v1::ConnectResponse& message) {
  if (message.has_verdicts()) {
    for (const v1::WordVerdict& verdict : message.verdicts().verdicts()) {
      if (verdict.kind() == v1::Word::ENDED) hooks_.ended();
    }
  }
  if (message.has_go() && hooks_.came) hooks_.came(message.go().assignment());
  MutexLock lock(&mutex_);
  if (message.has_registered()) {
    registered_ = true;
    changed_.SignalAll();
  } else if (message.has_go()) {
    AddWord(words_, message.go(), v1::Word::STARTED);
    if (hooks_.may_end()) {
      AddWord(words_, message.go(), v1::Word::ENDED);
    } else {
      running_on_.push_back(message.go());
    }
  } else if (message.has_verdicts()) {
    words_out_ = false;
  }
  SendWords();
}

absl::StatusOr<std::unique_ptr<SimWorkers>> SimWorkers::Start(const std::string& address,
                                                              const std::string& token,
                                                              const std::string& agent_name,
                                                              int workers, int slots,
                                                              const SimWorker::Hooks& hooks) {
  std::unique_ptr<SimWorkers> all(new SimWorkers);
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < kChannels; ++i) channels.push_back(rpc::MakeChannel(address));
  all->workers_.reserve(static_cast<size_t>(workers));
  all->beats_ = std::thread([loop = all.get()] { loop->BeatLoop(); });
  for (int i = 0; i < workers; ++i) {
    all->workers_.push_back(std::make_unique<SimWorker>(
        channels[static_cast<size_t>(i % kChannels)], token, agent_name, slots, hooks));
    if (i % 100 != 99) continue;
    PARLEY_RETURN_IF_ERROR(all->workers_.back()->WaitRegistered());
    all->beating_ = all->workers_.size();
  }
  for (const auto& worker : all->workers_) PARLEY_RETURN_IF_ERROR(worker->WaitRegistered());
  all->beating_ = all->workers_.size();
  return all;
}

SimWorkers::~SimWorkers() {
  stopping_ = true;
  if (beats_.joinable()) beats_.join();
}

void SimWorkers::BeatLoop() {
  for (size_t slice = 0; !stopping_; slice = (slice + 1) % kBeatSlices) {
    const absl::Time next = absl::Now() + absl::Seconds(1) / kBeatSlices;
    for (size_t i = slice; i < beating_; i += kBeatSlices) workers_[i]->Beat();
    absl::SleepFor(next - absl::Now());
  }
}

}  // namespace parley::bench
