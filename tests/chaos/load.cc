#include "load.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "auth/token.h"
#include "base/clock.h"
#include "base/status.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::chaos {
namespace {

namespace v1 = dispatch::v1;

constexpr int kAskers = 8;
constexpr absl::Duration kCallTimeout = absl::Seconds(2);
constexpr int64_t kKeepAskingUs = 60'000'000;

int64_t NowUs() { return Clock::Real().MonotonicMicros(); }

std::string Token() {
  auth::Claims claims;
  claims.identity = "chaos";
  claims.video.room_create = true;
  claims.video.room_list = true;
  return auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(12));
}

std::string_view WithoutPrefix(std::string_view name, std::string_view prefix) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

}  // namespace

// What becomes of one dispatch; a function of the seed and its number alone.
struct Load::Plan {
  int hold_ms = 0;
  bool fails = false;
  bool never = false;         // restart policy
  bool nobody = false;        // an agent that nothing serves: its deadline ends it
  int end_after_ms = -1;      // a client ends it so long after the acknowledgement
  int migrate_after_ms = -1;  // and asks for its job to be handed over
};

Load::Load(LoadOptions options) : options_(std::move(options)), token_(Token()) {}
Load::~Load() { Stop(); }

Load::Plan Load::PlanOf(int number) const {
  std::seed_seq seed{options_.seed, static_cast<unsigned>(number)};
  std::mt19937 random(seed);
  const auto one_in = [&](int n) { return std::uniform_int_distribution<int>(1, n)(random) == 1; };
  Plan plan;
  plan.hold_ms = std::uniform_int_distribution<int>(100, 2500)(random);
  plan.fails = one_in(12);
  plan.never = one_in(20);
  plan.nobody = one_in(40);
  if (one_in(12)) plan.end_after_ms = std::uniform_int_distribution<int>(0, 2000)(random);
  if (one_in(4)) plan.migrate_after_ms = std::uniform_int_distribution<int>(100, 1500)(random);
  return plan;
}

absl::Status Load::Start() {
  PARLEY_ASSIGN_OR_RETURN(notes_, log::AppendFile::Open(options_.evidence));
  stub_ = v1::DispatchService::NewStub(rpc::MakeChannel(options_.brokers));
  begin_us_ = NowUs();
  for (int i = 0; i < kAskers; ++i) threads_.emplace_back([this] { Create(); });
  threads_.emplace_back([this] { Disturb(); });
  return absl::OkStatus();
}

void Load::Stop() {
  stopping_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool Load::done() const {
  MutexLock lock(&mutex_);
  return settled_ >= options_.dispatches && later_.empty() && under_way_ == 0;
}

void Load::Note(const std::string& fields) {
  notes_->Write(
      fmt::format(R"({{"time_us":{},{}}})", absl::ToUnixMicros(Clock::Real().Now()), fields));
}

void Load::Create() {
  while (!stopping_) {
    const int number = next_.fetch_add(1);
    if (number >= options_.dispatches) return;
    const auto due_us =
        begin_us_ + static_cast<int64_t>(options_.seconds * 1e6 * number / options_.dispatches);
    while (!stopping_ && NowUs() < due_us) {
      std::this_thread::sleep_for(
          std::chrono::microseconds(std::clamp<int64_t>(due_us - NowUs(), 0, 50'000)));
    }
    if (!stopping_) Ask(number);
    settled_.fetch_add(1);
  }
}

// The same create under its key until somebody answers.
void Load::Ask(int number) {
  const Plan plan = PlanOf(number);
  const std::string key = fmt::format("chaos-{}-{}", options_.seed, number);
  v1::CreateDispatchRequest request;
  request.set_agent_name(plan.nobody ? "nobody" : "chaos");
  request.set_room(key);
  request.set_idempotency_key(key);
  request.set_metadata(fmt::format(R"({{"hold_ms":{},"end":"{}"}})", plan.hold_ms,
                                   plan.fails ? "fail" : "shutdown"));
  if (plan.never) request.set_restart_policy(v1::RESTART_POLICY_NEVER);
  const int wait_s = plan.nobody ? 3 : 120;
  request.mutable_queue_deadline()->set_seconds(wait_s);
  Note(fmt::format(R"("what":"ask","key":"{}","wait_ms":{})", key, wait_s * 1000));
  const int64_t until_us = NowUs() + kKeepAskingUs;
  while (!stopping_ && NowUs() < until_us) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, kCallTimeout);
    v1::CreateDispatchResponse response;
    if (!stub_->CreateDispatch(&context, request, &response).ok()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      continue;
    }
    const std::string& id = response.dispatch().id();
    Note(fmt::format(R"("what":"ack","key":"{}","dispatch":"{}")", key, id));
    acked_.fetch_add(1);
    MutexLock lock(&mutex_);
    open_.insert(id);
    if (plan.end_after_ms >= 0) later_.push({NowUs() + plan.end_after_ms * 1000, id});
    if (plan.migrate_after_ms >= 0 && response.dispatch().jobs_size() > 0) {
      later_.push({NowUs() + plan.migrate_after_ms * 1000, response.dispatch().jobs(0).id()});
    }
    return;
  }
  Note(fmt::format(R"("what":"give_up","key":"{}")", key));
}

void Load::Disturb() {
  while (!stopping_) {
    std::string id;
    {
      MutexLock lock(&mutex_);
      if (!later_.empty() && later_.top().at_us <= NowUs()) {
        id = later_.top().id;
        later_.pop();
        ++under_way_;
      }
    }
    if (id.empty()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      continue;
    }
    if (id.starts_with("AJ_")) {
      MigrateOne(id);
    } else {
      EndOne(id);
    }
    MutexLock lock(&mutex_);
    --under_way_;
  }
}

// Asked for once: it may wait, have ended, or find nobody who has room for it.
void Load::MigrateOne(const std::string& job) {
  grpc::ClientContext context;
  rpc::SetBearer(context, token_);
  rpc::SetTimeout(context, kCallTimeout);
  v1::MigrateJobRequest request;
  request.set_job_id(job);
  v1::MigrateJobResponse response;
  if (stub_->MigrateJob(&context, request, &response).ok()) migrated_.fetch_add(1);
}

void Load::EndOne(const std::string& id) {
  Note(fmt::format(R"("what":"terminate","dispatch":"{}")", id));
  v1::DeleteDispatchRequest request;
  request.set_dispatch_id(id);
  while (!stopping_) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, kCallTimeout);
    v1::DeleteDispatchResponse response;
    if (stub_->DeleteDispatch(&context, request, &response).ok()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

int Load::CountOpen() {
  std::set<std::string> open;
  {
    MutexLock lock(&mutex_);
    open = open_;
  }
  for (const std::string& id : open) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, kCallTimeout);
    v1::GetDispatchRequest request;
    request.set_dispatch_id(id);
    v1::GetDispatchResponse response;
    if (!stub_->GetDispatch(&context, request, &response).ok()) continue;
    const v1::Dispatch& dispatch = response.dispatch();
    if (dispatch.state() != v1::DISPATCH_STATE_ENDED || dispatch.jobs().empty()) continue;
    const v1::Job& job = dispatch.jobs(dispatch.jobs_size() - 1);
    Note(fmt::format(R"("what":"final","dispatch":"{}","job":"{}","state":"{}","reason":"{}")", id,
                     job.id(), WithoutPrefix(v1::JobState_Name(job.state()), "JOB_STATE_"),
                     WithoutPrefix(v1::JobReason_Name(job.reason()), "JOB_REASON_")));
    MutexLock lock(&mutex_);
    open_.erase(id);
  }
  MutexLock lock(&mutex_);
  return static_cast<int>(open_.size());
}

}  // namespace parley::chaos
