#include "room_server/dispatcher.h"

#include <algorithm>
#include <optional>

#include "base/ids.h"
#include "base/status.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::room_server {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(2);
constexpr absl::Duration kFirstRetry = absl::Milliseconds(100);
constexpr absl::Duration kMaxRetry = absl::Seconds(5);
constexpr size_t kMaxCalls = 256;  // under way at once
constexpr size_t kMaxConfirmed = 64;

bool MayHelpToRepeat(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kUnauthenticated:  // keys are being changed
      return true;
    default:
      return false;
  }
}

std::string KeyOf(const Wish& wish) {
  return wish.instance.empty() ? wish.agent_name : wish.agent_name + "\n" + wish.instance;
}

std::string DefaultKey(const Wish& wish) {
  const std::string key = wish.room_sid + "/" + wish.agent_name;
  return wish.instance.empty() ? key : key + "/" + wish.instance;
}

}  // namespace

struct Dispatcher::Entry {
  Wish wish;
  bool in_flight = false;
  bool settled = false;
  absl::Status status;  // of the last answer
  std::string dispatch_id;
  int answers = 0;
  int64_t next_try_us = 0;
};

struct Dispatcher::Call {
  std::shared_ptr<Entry> entry;
  grpc::ClientContext context;
  dispatch::v1::CreateDispatchRequest request;
  dispatch::v1::CreateDispatchResponse response;
};

Dispatcher::Dispatcher(std::shared_ptr<grpc::Channel> channel, TokenSource tokens,
                       RoomServerMetrics& metrics, log::Logger log, Clock& clock)
    : tokens_(std::move(tokens)),
      metrics_(metrics),
      log_(std::move(log)),
      clock_(clock),
      stub_(dispatch::v1::DispatchService::NewStub(std::move(channel))),
      retries_([this] { RetryLoop(); }) {}

Dispatcher::~Dispatcher() { Stop(); }

bool Dispatcher::Want(Wish wish) {
  MutexLock lock(&mutex_);
  bool added = false;
  AddLocked(std::move(wish), &added);
  return added;
}

absl::StatusOr<std::string> Dispatcher::WantNow(Wish wish, bool* added) {
  const int64_t until_us =
      clock_.MonotonicMicros() + absl::ToInt64Microseconds(kCallTimeout + absl::Milliseconds(200));
  MutexLock lock(&mutex_);
  const std::shared_ptr<Entry> entry = AddLocked(std::move(wish), added);
  if (entry == nullptr) return Unavailable("the room server is stopping");
  const int answers = entry->answers;
  if (!entry->settled && !entry->in_flight) SendLocked(entry);
  while (!entry->settled && entry->answers == answers && !stopped_) {
    const int64_t left_us = until_us - clock_.MonotonicMicros();
    if (left_us <= 0) {
      return Unavailable("the dispatch broker did not answer in time; the wish is kept");
    }
    changed_.WaitFor(&mutex_, absl::Microseconds(left_us));
  }
  if (stopped_ && !entry->settled) return Unavailable("the room server is stopping");
  if (!entry->status.ok()) return Annotate(entry->status, "asking for an agent");
  return entry->dispatch_id;
}

std::map<std::string, std::string> Dispatcher::Confirmed(const std::string& room_sid) const {
  std::map<std::string, std::string> confirmed;
  MutexLock lock(&mutex_);
  const auto room = rooms_.find(room_sid);
  if (room == rooms_.end()) return confirmed;
  for (const auto& [key, entry] : room->second) {
    const bool one_of_its_kind = entry->wish.instance.empty();
    if (entry->settled && one_of_its_kind && confirmed.size() < kMaxConfirmed) {
      confirmed[entry->wish.agent_name] = entry->dispatch_id;
    }
  }
  return confirmed;
}

void Dispatcher::Inherit(const std::string& room_sid,
                         const std::map<std::string, std::string>& confirmed) {
  MutexLock lock(&mutex_);
  if (stopped_) return;
  for (const auto& [name, dispatch_id] : confirmed) {
    std::shared_ptr<Entry>& entry = rooms_[room_sid][name];
    if (entry != nullptr) continue;
    entry = std::make_shared<Entry>();
    entry->wish.room_sid = room_sid;
    entry->wish.agent_name = name;
    entry->settled = true;
    entry->dispatch_id = dispatch_id;
  }
}

std::shared_ptr<Dispatcher::Entry> Dispatcher::AddLocked(Wish wish, bool* added) {
  if (stopped_) return nullptr;
  std::shared_ptr<Entry>& entry = rooms_[wish.room_sid][KeyOf(wish)];
  if (entry != nullptr) return entry;
  if (added != nullptr) *added = true;
  entry = std::make_shared<Entry>();
  if (wish.idempotency_key.empty()) wish.idempotency_key = DefaultKey(wish);
  entry->wish = std::move(wish);
  pending_[entry.get()] = entry;
  metrics_.dispatches_pending.Set(static_cast<double>(pending_.size()));
  if (calls_.size() < kMaxCalls) {
    SendLocked(entry);
  } else {
    changed_.SignalAll();  // the retry loop sends it when there is room
  }
  return entry;
}

void Dispatcher::SendLocked(const std::shared_ptr<Entry>& entry) {
  auto call = std::make_shared<Call>();
  call->entry = entry;
  const Wish& wish = entry->wish;
  auto& request = call->request;
  request.set_request_id(wish.idempotency_key);
  request.set_agent_name(wish.agent_name);
  request.set_room(wish.room);
  request.set_metadata(wish.metadata);
  for (const auto& [key, value] : wish.attributes) (*request.mutable_attributes())[key] = value;
  if (wish.never_restart) request.set_restart_policy(dispatch::v1::RESTART_POLICY_NEVER);
  request.set_idempotency_key(wish.idempotency_key);
  if (!wish.deployment.empty()) request.mutable_selector()->set_deployment(wish.deployment);
  request.set_room_sid(wish.room_sid);
  request.set_session_id(wish.session_id);
  request.set_project(wish.project);
  rpc::SetBearer(call->context, tokens_(wish.project));
  rpc::SetTimeout(call->context, kCallTimeout);
  const TraceScope scope(wish.trace);
  rpc::SetTrace(call->context);
  entry->in_flight = true;
  calls_[call.get()] = call;
  stub_->async()->CreateDispatch(
      &call->context, &call->request, &call->response,
      [this, call](const grpc::Status& status) { OnAnswer(call, status); });
}

void Dispatcher::OnAnswer(const std::shared_ptr<Call>& call, const grpc::Status& status) {
  MutexLock lock(&mutex_);
  calls_.erase(call.get());
  Entry& entry = *call->entry;
  entry.in_flight = false;
  ++entry.answers;
  SettleLocked(entry, rpc::FromGrpcStatus(status), call->response.dispatch().id());
  changed_.SignalAll();
}

void Dispatcher::SettleLocked(Entry& entry, const absl::Status& status, std::string dispatch_id) {
  entry.status = status;
  const Wish& wish = entry.wish;
  if (status.ok()) {
    entry.dispatch_id = std::move(dispatch_id);
    metrics_.dispatches_created.Increment();
  } else if (wish.agent_name.empty() && ReasonOf(status).reason == "UNSERVED") {
    // Nobody serves rooms that name no agent: as good as done.
    entry.status = absl::OkStatus();
    metrics_.dispatches_unserved.Increment();
    if (wish.on_nobody) wish.on_nobody();
  } else if (const ErrorReason why = ReasonOf(status);
             why.reason == "KEY_REUSED" && wish.idempotency_key == DefaultKey(wish)) {
    // Somebody else's wish for the room's agent came first, at the server that had the room before.
    entry.status = absl::OkStatus();
    const auto known = why.metadata.find("dispatch_id");
    if (known != why.metadata.end()) entry.dispatch_id = known->second;
  } else if (MayHelpToRepeat(status.code())) {
    const int doublings = std::min(entry.answers - 1, 8);
    const absl::Duration wait = std::min(kMaxRetry, kFirstRetry * (1 << doublings));
    entry.next_try_us = clock_.MonotonicMicros() + absl::ToInt64Microseconds(wait);
    metrics_.dispatch_retries.Increment();
    if (entry.answers == 1) {
      log_.Warn("dispatch not created yet; trying again until the room closes",
                {{"room", wish.room},
                 {"project", wish.project},
                 {"agent_name", wish.agent_name},
                 {"error", Message(status)}});
    }
    return;
  } else {
    metrics_.dispatches_refused.Increment();
    if (wish.on_nobody) wish.on_nobody();
    log_.Error("the broker refuses a dispatch", {{"room", wish.room},
                                                 {"project", wish.project},
                                                 {"agent_name", wish.agent_name},
                                                 {"error", Message(status)}});
  }
  entry.settled = true;
  pending_.erase(&entry);
  // After an error a better wish may come; an instance is wished for once.
  if (!entry.status.ok() || !wish.instance.empty()) {
    if (const auto room = rooms_.find(wish.room_sid); room != rooms_.end()) {
      room->second.erase(KeyOf(wish));
    }
  }
  metrics_.dispatches_pending.Set(static_cast<double>(pending_.size()));
}

void Dispatcher::RoomClosed(const std::string& room_sid) {
  MutexLock lock(&mutex_);
  const auto room = rooms_.find(room_sid);
  if (room == rooms_.end()) return;
  for (const auto& [name, entry] : room->second) pending_.erase(entry.get());
  rooms_.erase(room);
  metrics_.dispatches_pending.Set(static_cast<double>(pending_.size()));
}

void Dispatcher::RetryLoop() {
  MutexLock lock(&mutex_);
  while (!stopped_) {
    const int64_t now_us = clock_.MonotonicMicros();
    std::optional<int64_t> next_us;
    for (const auto& [key, entry] : std::map(pending_)) {
      if (entry->in_flight) continue;
      if (entry->next_try_us <= now_us && calls_.size() < kMaxCalls) {
        SendLocked(entry);
      } else if (!next_us || entry->next_try_us < *next_us) {
        next_us = entry->next_try_us;
      }
    }
    if (!next_us) {
      changed_.Wait(&mutex_);
    } else {
      changed_.WaitFor(&mutex_, absl::Microseconds(std::max<int64_t>(*next_us - now_us, 1'000)));
    }
  }
}

void Dispatcher::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    for (const auto& [key, call] : calls_) call->context.TryCancel();
    changed_.SignalAll();
    while (!calls_.empty()) changed_.Wait(&mutex_);
  }
  if (retries_.joinable()) retries_.join();
}

}  // namespace parley::room_server
