#include "api_server/livekit/broker_side.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace parley::api_server {
namespace {

namespace v1 = ::parley::dispatch::v1;
using agent::JobKey;
using agent::JobTable;

constexpr absl::Duration kBeat = absl::Seconds(1);
constexpr absl::Duration kLeave = absl::Seconds(5);
constexpr int64_t kBrokerSilentUs = 5'000'000;  // five answers to heartbeats missing
constexpr int64_t kStoreAwayUs = 2'000'000;     // then another broker is asked
constexpr int64_t kSayAgainUs = 3'000'000;
constexpr size_t kWordBytes = 512 << 10;  // of one message

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

absl::Duration Until(const google::protobuf::Timestamp& time) {
  return std::max(absl::ZeroDuration(), absl::FromUnixSeconds(time.seconds()) +
                                            absl::Nanoseconds(time.nanos()) - absl::Now());
}

}  // namespace

BrokerSide::BrokerSide(std::shared_ptr<event::Loop> loop,
                       const std::shared_ptr<grpc::Channel>& channel,
                       std::function<std::string()> token, Facts facts, uint64_t after_seq,
                       Owner& owner)
    : loop_(std::move(loop)),
      facts_(std::move(facts)),
      owner_(&owner),
      jobs_(facts_.slots),
      link_(loop_, channel, std::move(token), *this, after_seq),
      beat_timer_(*loop_),
      leave_timer_(*loop_) {}

void BrokerSide::Inherit(const v1::Assignment& assignment) {
  const JobKey key{assignment.job_id(), assignment.fencing_token()};
  jobs_.Admit(assignment);
  jobs_.Started(key);
}

void BrokerSide::Start() { link_.Start(); }

void BrokerSide::SetStatus(double load, bool accepting) {
  load_ = load;
  if (std::exchange(accepting_, accepting) != accepting) Beat();
}

void BrokerSide::Accept(const JobKey& key) { SayWord(key, v1::Word::ACCEPTED); }

void BrokerSide::Reject(const JobKey& key, bool final, std::string_view why) {
  SayWord(key, v1::Word::REJECTED, final, why);
}

void BrokerSide::Started(const JobKey& key) {
  jobs_.Started(key);
  SayWords();
}

void BrokerSide::Stopping(const JobKey& key) { jobs_.Stopping(key); }

void BrokerSide::Ended(const JobKey& key, v1::JobReason reason, std::string_view error) {
  jobs_.Ended(key, reason, error, {}, loop_->NowMicros());
  SayWords();
}

void BrokerSide::Released(const JobKey& key) {
  jobs_.Released(key, loop_->NowMicros());
  SayWords();
}

// ---- the broker ----

void BrokerSide::FillRegister(v1::Register& request) {
  request.set_worker_id(facts_.worker_id);
  request.set_instance(facts_.instance);
  request.add_agent_names(facts_.agent_name);
  request.set_slots(facts_.slots);
  request.set_version(facts_.version);
  request.set_deployment(facts_.deployment);
  request.set_hostname(facts_.hostname);
  request.mutable_labels()->insert(facts_.labels.begin(), facts_.labels.end());
  request.set_load(load_);
  // It says itself when it is full.
  request.set_load_threshold(1);
  *request.mutable_report() = jobs_.MakeReport();
}

void BrokerSide::OnBroker(const v1::ConnectResponse& response) {
  if (over_) return;
  switch (response.message_case()) {
    case v1::ConnectResponse::kRegistered:
      return OnRegistered(response.registered());
    case v1::ConnectResponse::kHeartbeatAck:
      store_available_ = response.heartbeat_ack().store_available();
      if (store_available_) store_away_since_us_ = 0;
      if (!store_available_ && store_away_since_us_ == 0) store_away_since_us_ = loop_->NowMicros();
      return;
    case v1::ConnectResponse::kVerdicts:
      for (const auto& verdict : response.verdicts().verdicts()) {
        Obey({verdict.job_id(), verdict.fencing_token()},
             jobs_.OnVerdict(verdict, loop_->NowMicros()));
      }
      return LeaveIfDone();
    case v1::ConnectResponse::kOffer: {
      const v1::Assignment& assignment = response.offer().assignment();
      if (owner_ != nullptr) return owner_->OnOffer(*this, assignment);
      return Reject({assignment.job_id(), assignment.fencing_token()}, false, "the worker left");
    }
    case v1::ConnectResponse::kGo:
      return OnGo(response.go());
    case v1::ConnectResponse::kStop:
      return Obey({response.stop().job_id(), response.stop().fencing_token()},
                  JobTable::Order::kStop);
    case v1::ConnectResponse::kRevoke: {
      const JobKey key{response.revoke().job_id(), response.revoke().fencing_token()};
      for (const JobKey& older : jobs_.OlderThan(key)) Revoke(older);
      return Revoke(key);
    }
    case v1::ConnectResponse::kReportRequest: {
      v1::ConnectRequest request;
      *request.mutable_report() = jobs_.MakeReport();
      link_.Send(std::move(request));
      jobs_.SayAgain(loop_->NowMicros());
      return SayWords();
    }
    case v1::ConnectResponse::kDrain:
      if (owner_ == nullptr) return;
      return owner_->OnDrain(*this, response.drain().has_deadline()
                                        ? Until(response.drain().deadline())
                                        : absl::InfiniteDuration());
    case v1::ConnectResponse::kReadLogs: {
      if (response.read_logs().cancel()) return;
      v1::ConnectRequest request;
      request.mutable_log()->set_request(response.read_logs().request());
      request.mutable_log()->set_end(true);
      request.mutable_log()->set_error("a LiveKit worker keeps the logs of its jobs to itself");
      link_.Send(std::move(request));
      return;
    }
    default:
      return;  // hand-overs: its jobs cannot be paused
  }
}

void BrokerSide::OnRegistered(const v1::Registered& registered) {
  for (const auto& verdict : registered.jobs()) {
    Obey({verdict.job_id(), verdict.fencing_token()}, jobs_.OnResume(verdict, loop_->NowMicros()));
  }
  jobs_.SayAgain(loop_->NowMicros());
  SayWords();
  beats_ = 0;
  store_available_ = true;
  store_away_since_us_ = 0;
  absl::Duration beat = FromProto(registered.heartbeat_interval());
  if (beat <= absl::ZeroDuration()) beat = kBeat;
  beat_timer_.StartRepeating(beat, [this] { Beat(); });
  if (!accepting_) Beat();  // registering has made it accept
  LeaveIfDone();
  if (!std::exchange(registered_once_, true) && owner_ != nullptr) owner_->OnRegistered(*this);
}

bool BrokerSide::OnBrokerLost(const absl::Status& status, bool /*was_registered*/) {
  if (over_) return false;
  const bool refused = absl::IsAborted(status) || absl::IsAlreadyExists(status) ||
                       absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) ||
                       absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status);
  if (!refused) return true;
  if (left_) {
    Gone();
    return false;
  }
  over_ = true;
  beat_timer_.Stop();
  if (owner_ != nullptr) owner_->OnLost(*this, status);
  return false;
}

void BrokerSide::OnGo(const v1::Go& go) {
  const JobKey key{go.job_id(), go.fencing_token()};
  // Nobody can pause a LiveKit worker's job, or begin one in the middle.
  if (go.assignment().take_over()) {
    return Reject(key, false, "LiveKit workers take over no running jobs");
  }
  switch (jobs_.Admit(go.assignment())) {
    case JobTable::Admission::kKnown:
      return;
    case JobTable::Admission::kOver:
    case JobTable::Admission::kFull:
      return SayWord(key, v1::Word::RELEASED);
    case JobTable::Admission::kStart:
      break;
  }
  for (const JobKey& older : jobs_.OlderThan(key)) Revoke(older);
  if (owner_ == nullptr) return Released(key);
  owner_->OnGo(*this, go);
}

void BrokerSide::Obey(const JobKey& key, JobTable::Order order) {
  if (order == JobTable::Order::kKill) return Revoke(key);
  if (order == JobTable::Order::kStop && owner_ != nullptr) owner_->OnStop(*this, key);
}

void BrokerSide::Revoke(const JobKey& key) {
  if (owner_ != nullptr) owner_->OnRevoke(*this, key);
}

// ---- saying ----

void BrokerSide::SayWord(const JobKey& key, v1::Word::Kind kind, bool final,
                         std::string_view error) {
  v1::ConnectRequest request;
  v1::Word& word = *request.mutable_words()->add_words();
  word.set_job_id(key.job_id);
  word.set_fencing_token(key.token);
  word.set_kind(kind);
  word.set_final(final);
  word.set_error(std::string(error));
  link_.Send(std::move(request));  // lost with the stream: the offer comes again with the next one
}

// What one turn of the loop brings goes out together.
void BrokerSide::SayWords() {
  if (std::exchange(words_pending_, true)) return;
  loop_->Post([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->words_pending_ = false;
    if (!self->link_.registered()) return;  // registering says them all
    v1::ConnectRequest request;
    size_t bytes = 0;
    for (v1::Word& word : self->jobs_.TakeUnsaid(self->loop_->NowMicros())) {
      bytes += word.ByteSizeLong();
      *request.mutable_words()->add_words() = std::move(word);
      if (bytes < kWordBytes) continue;
      self->link_.Send(std::exchange(request, {}));
      bytes = 0;
    }
    if (bytes > 0) self->link_.Send(std::move(request));
  });
}

void BrokerSide::Beat() {
  if (over_ || !link_.registered()) return;
  const int64_t now_us = loop_->NowMicros();
  jobs_.Sweep(now_us);
  if (now_us - link_.heard_us() > kBrokerSilentUs) return link_.Break();
  if (store_away_since_us_ != 0 && now_us - store_away_since_us_ >= kStoreAwayUs) link_.Move();
  v1::ConnectRequest request;
  request.mutable_heartbeat()->set_seq(++beats_);
  request.mutable_heartbeat()->set_load(load_);
  request.mutable_heartbeat()->set_active_jobs(jobs_.active());
  request.mutable_heartbeat()->set_accepting(accepting_);
  link_.Send(std::move(request));
  if (!store_available_) return;  // it keeps what it was told
  jobs_.SayAgain(now_us - kSayAgainUs);
  SayWords();
}

// ---- the end ----

void BrokerSide::Leave(std::function<void()> done) {
  owner_ = nullptr;
  left_ = std::move(done);
  if (over_ || !registered_once_) return Gone();
  SetStatus(load_, false);
  leave_timer_.StartOnce(kLeave, [this] { Gone(); });
  LeaveIfDone();
}

void BrokerSide::LeaveIfDone() {
  if (left_ && !jobs_.has_unanswered() && link_.registered()) Gone();
}

void BrokerSide::Gone() {
  if (!left_) return;
  leave_timer_.Stop();
  beat_timer_.Stop();
  const bool report = !std::exchange(over_, true) && registered_once_ && jobs_.active() == 0;
  // Not in a call of the link's: what `done` brings down holds it.
  auto done = [loop = loop_, self = shared_from_this(), left = std::exchange(left_, nullptr)] {
    self->link_.Close();
    loop->Post([self, left] { left(); });
  };
  if (!report) return done();
  link_.ReportGone(facts_.worker_id, facts_.instance, [done](const absl::Status&) { done(); });
}

}  // namespace parley::api_server
