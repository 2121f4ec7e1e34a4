#include "api_server/livekit/attached_job.h"

#include <algorithm>
#include <utility>

#include "base/ids.h"
#include "base/status.h"
#include "rpc/channel.h"

namespace parley::api_server {
namespace {

namespace v1 = ::parley::dispatch::v1;

constexpr absl::Duration kCall = absl::Seconds(3);
constexpr int kMaxHops = 3;
constexpr int64_t kAgainUs = 500'000;
constexpr int64_t kGiveUpUs = 60'000'000;  // without a room server, or a broker
// How often the broker is asked how the job is: soon after something happened, then seldom.
constexpr int64_t kSoonUs = 200'000;
constexpr int64_t kSeldomUs = 5'000'000;
constexpr size_t kMaxShownName = 180;  // of the external room's

template <typename Request, typename Response>
struct Call {
  grpc::ClientContext context;
  Request request;
  Response response;
};

bool MayRetry(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status);
}

std::string OwnRoom(const lk::Job& job) {
  return job.room().name().substr(0, kMaxShownName) + "~" + job.id();
}

}  // namespace

AttachedJob::AttachedJob(Backend& backend, std::shared_ptr<event::Loop> loop, std::string project,
                         lk::Job job, std::string url, std::string token, Report report)
    : backend_(backend),
      loop_(std::move(loop)),
      project_(std::move(project)),
      job_(std::move(job)),
      url_(std::move(url)),
      room_(OwnRoom(job_)),
      report_(std::move(report)),
      token_(std::move(token)),
      look_every_us_(kSoonUs) {}

void AttachedJob::Start() { OpenMirror(backend_.config.rooms_address); }

void AttachedJob::OpenMirror(const std::string& address) {
  const uint64_t number = ++streams_;
  // gRPC keeps the stub's channel alive with the call.
  auto stub = std::shared_ptr<room::v1::ConnectorService::Stub>(
      room::v1::ConnectorService::NewStub(rpc::MakeCallChannel(address)));
  Stream::Options options;
  options.bearer = backend_.context.ServiceToken(project_);
  options.on_message = [weak = weak_from_this(), loop = loop_, stub,
                        number](room::v1::MirrorResponse& response) {
    loop->Post([weak, number, response] {
      if (const auto self = weak.lock()) self->OnMirror(number, response);
    });
  };
  options.on_done = [weak = weak_from_this(), loop = loop_, number](const absl::Status& status) {
    loop->Post([weak, number, status] {
      if (const auto self = weak.lock()) self->OnMirrorClosed(number, status);
    });
  };
  stream_ =
      Stream::Open([&](auto* context, auto* reactor) { stub->async()->Connect(context, reactor); },
                   std::move(options));
  room::v1::MirrorRequest request;
  request.mutable_open()->set_project(project_);
  request.mutable_open()->set_room(room_);
  request.mutable_open()->set_url(url_);
  request.mutable_open()->set_token(token_);
  stream_->Send(request);
}

void AttachedJob::OnMirror(uint64_t stream, const room::v1::MirrorResponse& response) {
  if (stream != streams_ || over_) return;
  switch (response.message_case()) {
    case room::v1::MirrorResponse::kOpened:
      hops_ = 0;
      lost_since_us_ = 0;
      if (!std::exchange(wanted_, true)) Dispatch();
      return;
    case room::v1::MirrorResponse::kToken:
      token_ = response.token();
      return;
    case room::v1::MirrorResponse::kAgent:
      look_us_ = 0;  // something happened
      look_every_us_ = kSoonUs;
      return;
    case room::v1::MirrorResponse::kEnded:
      if (response.ended().code() != 0) why_ended_ = response.ended().message();
      look_us_ = 0;
      look_every_us_ = kSoonUs;
      ++streams_;  // its stream ends with it
      if (dispatch_id_.empty() && !asking_) return End(lk::JS_FAILED, "the room was not joined");
      return Cancel();
    default:
      return;
  }
}

void AttachedJob::OnMirrorClosed(uint64_t stream, const absl::Status& status) {
  if (stream != streams_ || over_) return;
  stream_ = nullptr;
  const ErrorReason why = ReasonOf(status);
  const auto url = why.metadata.find("media_url");
  if (why.reason == "ROOM_ELSEWHERE" && url != why.metadata.end() && ++hops_ < kMaxHops) {
    return OpenMirror(url->second);
  }
  const int64_t now_us = loop_->NowMicros();
  if (lost_since_us_ == 0) lost_since_us_ = now_us;
  const bool hopeless = !MayRetry(status) && !status.ok() && why.reason != "ROOM_ELSEWHERE" &&
                        !absl::IsCancelled(status);
  if (hopeless || now_us - lost_since_us_ > kGiveUpUs) {
    why_ended_ = Message(status);
    if (dispatch_id_.empty() && !asking_) return End(lk::JS_FAILED, why_ended_);
    return Cancel();
  }
  hops_ = 0;
  mirror_again_us_ = now_us + kAgainUs;
}

void AttachedJob::Dispatch() {
  const int64_t now_us = loop_->NowMicros();
  if (asked_since_us_ == 0) asked_since_us_ = now_us;
  asking_ = true;
  auto call = std::make_shared<Call<v1::CreateDispatchRequest, v1::CreateDispatchResponse>>();
  rpc::SetBearer(call->context, backend_.context.ServiceToken(project_));
  rpc::SetTimeout(call->context, kCall);
  v1::CreateDispatchRequest& request = call->request;
  request.set_request_id(RandomHex(8));
  request.set_project(project_);
  request.set_agent_name(job_.agent_name());
  request.set_room(room_);
  request.set_metadata(job_.metadata());
  // Whoever asks twice, this replica or another, asks for one agent.
  request.set_idempotency_key("livekit/" + job_.id());
  auto& attributes = *request.mutable_attributes();
  for (const auto& [key, value] : job_.attributes()) attributes[key] = value;
  attributes["livekit.room"] = job_.room().name();
  attributes["livekit.job_id"] = job_.id();
  attributes["livekit.dispatch_id"] = job_.dispatch_id();
  backend_.dispatch->async()->CreateDispatch(
      &call->context, &call->request, &call->response,
      [call, loop = loop_, weak = weak_from_this()](const grpc::Status& status) {
        loop->Post([call, weak, status] {
          if (const auto self = weak.lock()) {
            self->OnDispatched(rpc::FromGrpcStatus(status), call->response.dispatch());
          }
        });
      });
}

void AttachedJob::OnDispatched(const absl::Status& status, const v1::Dispatch& dispatch) {
  asking_ = false;
  if (over_) return;
  const int64_t now_us = loop_->NowMicros();
  if (!status.ok()) {
    if (!MayRetry(status) || terminated_ || now_us - asked_since_us_ > kGiveUpUs) {
      return End(lk::JS_FAILED, std::string(Message(status)));
    }
    ask_again_us_ = now_us + kAgainUs;
    return;
  }
  dispatch_id_ = dispatch.id();
  if (terminated_ || !why_ended_.empty()) Cancel();
}

void AttachedJob::Look() {
  looking_ = true;
  auto call = std::make_shared<Call<v1::GetDispatchRequest, v1::GetDispatchResponse>>();
  rpc::SetBearer(call->context, backend_.context.ServiceToken(project_));
  rpc::SetTimeout(call->context, kCall);
  call->request.set_dispatch_id(dispatch_id_);
  backend_.dispatch->async()->GetDispatch(
      &call->context, &call->request, &call->response,
      [call, loop = loop_, weak = weak_from_this()](const grpc::Status& status) {
        loop->Post([call, weak, status] {
          if (const auto self = weak.lock()) {
            self->OnLooked(rpc::FromGrpcStatus(status), call->response.dispatch());
          }
        });
      });
}

void AttachedJob::OnLooked(const absl::Status& status, const v1::Dispatch& dispatch) {
  looking_ = false;
  look_us_ = loop_->NowMicros() + look_every_us_;
  look_every_us_ = std::min(look_every_us_ * 2, kSeldomUs);
  if (over_ || !status.ok() || dispatch.jobs().empty()) return;
  const v1::Job& job = dispatch.jobs(0);
  placed_ = job.state() == v1::JOB_STATE_ASSIGNED || job.state() == v1::JOB_STATE_RUNNING;
  if (job.state() == v1::JOB_STATE_RUNNING && !std::exchange(running_, true)) {
    report_(lk::JS_RUNNING, {});
  }
  if (dispatch.state() != v1::DISPATCH_STATE_ENDED) return;
  if (!why_ended_.empty()) return End(lk::JS_FAILED, why_ended_);
  const bool failed = job.state() == v1::JOB_STATE_FAILED;
  const std::string error = job.error().empty() ? v1::JobReason_Name(job.reason()) : job.error();
  End(failed ? lk::JS_FAILED : lk::JS_SUCCESS, failed ? error : std::string());
}

void AttachedJob::Terminate() {
  if (over_ || std::exchange(terminated_, true)) return;
  if (!dispatch_id_.empty()) return Cancel();
  if (!asking_ && !wanted_) End(lk::JS_SUCCESS, {});
}

void AttachedJob::Cancel() {
  terminated_ = true;
  if (dispatch_id_.empty() || std::exchange(cancelling_, true)) return;
  auto call = std::make_shared<Call<v1::DeleteDispatchRequest, v1::DeleteDispatchResponse>>();
  rpc::SetBearer(call->context, backend_.context.ServiceToken(project_));
  rpc::SetTimeout(call->context, kCall);
  call->request.set_request_id(RandomHex(8));
  call->request.set_dispatch_id(dispatch_id_);
  backend_.dispatch->async()->DeleteDispatch(
      &call->context, &call->request, &call->response,
      [call, loop = loop_, weak = weak_from_this()](const grpc::Status& status) {
        loop->Post([call, weak, status] {
          const auto self = weak.lock();
          if (self == nullptr) return;
          self->cancelling_ = false;
          self->look_us_ = 0;
          self->look_every_us_ = kSoonUs;
          if (!status.ok()) self->ask_again_us_ = self->loop_->NowMicros() + kAgainUs;
        });
      });
}

void AttachedJob::Tick(int64_t now_us) {
  if (over_) return;
  if (mirror_again_us_ != 0 && now_us >= mirror_again_us_) {
    mirror_again_us_ = 0;
    OpenMirror(backend_.config.rooms_address);
  }
  if (ask_again_us_ != 0 && now_us >= ask_again_us_) {
    ask_again_us_ = 0;
    dispatch_id_.empty() ? Dispatch() : Cancel();
  }
  if (!dispatch_id_.empty() && !looking_ && now_us >= look_us_) Look();
}

void AttachedJob::End(lk::JobStatus status, const std::string& error) {
  if (std::exchange(over_, true)) return;
  if (stream_ != nullptr) {
    room::v1::MirrorRequest request;
    request.mutable_close();
    stream_->Send(request);
    stream_->HalfClose();
    stream_ = nullptr;
  }
  report_(status, error);
}

void AttachedJob::Abandon() {
  over_ = true;
  if (stream_ != nullptr) stream_->Cancel();
  stream_ = nullptr;
}

}  // namespace parley::api_server
