// /rtc/v1 (one peer connection) and /rtc (two): LiveKit's client SDKs. Their WebSocket ends here;
// its frames go on to the room server over gRPC, and to another one when the room is there.
#include <absl/time/clock.h>
#include <grpcpp/alarm.h>
#include <parley/room/v1/signalling.grpc.pb.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "api_server/routes.h"
#include "api_server/signalling.h"
#include "base/mutex.h"
#include "base/status.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"

namespace parley::api_server {
namespace {

namespace roomv1 = ::parley::room::v1;

constexpr auto kOne = "/rtc/v1";
constexpr auto kTwo = "/rtc";
// Of /rtc, what a room server makes use of.
constexpr auto kQuery = {"auto_subscribe", "attributes", "reconnect", "sid"};
constexpr int kMaxHops = 3;       // from room server to room server
constexpr size_t kMaxEarly = 64;  // frames that are kept for another room server
// A dead server's room is another's some seconds later: so long is asked where, and so often.
// SDKs wait 5 s for their first answer.
constexpr absl::Duration kAskFor = absl::Milliseconds(4500);
constexpr absl::Duration kAskEvery = absl::Milliseconds(300);
constexpr int kNormal = 1000;
constexpr int kRefused = 1008;
constexpr int kFailed = 1011;
constexpr int kTryAgain = 1013;

int CloseCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kNormal;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
      return kTryAgain;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return kFailed;
    default:
      return kRefused;
  }
}

// One channel to each room server, while anybody uses it: each would keep resolvers and queues of
// its own. Thread-safe.
class Channels {
 public:
  std::shared_ptr<grpc::Channel> To(const std::string& address) {
    MutexLock lock(&mutex_);
    std::weak_ptr<grpc::Channel>& known = channels_[address];
    std::shared_ptr<grpc::Channel> channel = known.lock();
    if (channel != nullptr) return channel;
    known = channel = rpc::MakeCallChannel(address);
    std::erase_if(channels_, [](const auto& entry) { return entry.second.expired(); });
    return channel;
  }

 private:
  Mutex mutex_;
  std::map<std::string, std::weak_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mutex_);
};

// One client's WebSocket and the stream behind it.
class Forward final : public http::WebSocketListener, public std::enable_shared_from_this<Forward> {
 public:
  // `rooms`: any room server.
  Forward(std::shared_ptr<Channels> channels, std::string rooms, roomv1::OpenSignalling open,
          std::shared_ptr<http::WebSocket> socket)
      : channels_(std::move(channels)), rooms_(std::move(rooms)), socket_(std::move(socket)) {
    *open_.mutable_open() = std::move(open);
  }

  void Start() { ConnectTo(rooms_); }

  void OnMessage(http::WebSocketMessage message) override {
    roomv1::ConnectRequest request;
    request.mutable_frame()->set_data(std::move(message.data));
    request.mutable_frame()->set_text(message.text);
    MutexLock lock(&mutex_);
    if (!answered_ && early_.size() < kMaxEarly) early_.push_back(request);
    if (stream_ == nullptr || stream_->Send(std::move(request))) return;
    socket_->Close(kTryAgain, "the room server does not keep up");
  }

  void OnClosed() override {
    MutexLock lock(&mutex_);
    closed_ = true;
    if (stream_ != nullptr) stream_->Cancel();
  }

 private:
  void ConnectTo(const std::string& address) {
    using Stream = rpc::ClientBidi<roomv1::ConnectRequest, roomv1::ConnectResponse>;
    // gRPC keeps the stub's channel alive with the call.
    auto stub = std::shared_ptr<roomv1::SignallingService::Stub>(
        roomv1::SignallingService::NewStub(channels_->To(address)));
    Stream::Options options;
    options.on_message = [self = shared_from_this(), stub](roomv1::ConnectResponse& response) {
      self->OnResponse(response);
    };
    options.on_done = [self = shared_from_this()](const absl::Status& status) {
      self->OnDone(status);
    };
    MutexLock lock(&mutex_);
    if (closed_) return;
    stream_ = Stream::Open(
        [&](auto* context, auto* reactor) { stub->async()->Connect(context, reactor); },
        std::move(options));
    stream_->Send(open_);
    for (const auto& frame : early_) stream_->Send(frame);
  }

  void OnResponse(roomv1::ConnectResponse& response) {
    {
      MutexLock lock(&mutex_);
      answered_ = true;
      early_.clear();
      open_.Clear();  // some KiB, of no use any more
    }
    http::WebSocketMessage message{std::move(*response.mutable_frame()->mutable_data()),
                                   response.frame().text()};
    if (!socket_->Send(std::move(message)))
      socket_->Close(kTryAgain, "the client does not keep up");
  }

  void OnDone(const absl::Status& status) {
    decltype(stream_) over;  // it holds us, and we hold it
    bool answered = false;
    {
      MutexLock lock(&mutex_);
      over = std::exchange(stream_, nullptr);
      answered = answered_;
    }
    const ErrorReason why = ReasonOf(status);
    const auto url = why.metadata.find("media_url");
    if (!answered && why.reason == "ROOM_ELSEWHERE" && url != why.metadata.end() &&
        ++hops_ < kMaxHops) {
      return ConnectTo(url->second);
    }
    // Who has the room is dead, or drains and takes none.
    const bool away =
        status.code() == absl::StatusCode::kUnavailable && (hops_ > 0 || why.reason == "DRAINING");
    if (away && !answered && absl::Now() + kAskEvery < ask_until_) {
      hops_ = 0;
      return again_.Set(absl::ToChronoTime(absl::Now() + kAskEvery),
                        [weak = weak_from_this()](bool) {
                          if (const auto self = weak.lock()) self->ConnectTo(self->rooms_);
                        });
    }
    socket_->Close(CloseCode(status), Message(status));
  }

  const std::shared_ptr<Channels> channels_;
  const std::string rooms_;
  const std::shared_ptr<http::WebSocket> socket_;
  const absl::Time ask_until_ = absl::Now() + kAskFor;
  int hops_ = 0;
  grpc::Alarm again_;
  Mutex mutex_;
  roomv1::ConnectRequest open_;  // empty once answered; written in the constructor, then guarded
  std::shared_ptr<rpc::ClientBidi<roomv1::ConnectRequest, roomv1::ConnectResponse>> stream_
      ABSL_GUARDED_BY(mutex_);
  std::vector<roomv1::ConnectRequest> early_ ABSL_GUARDED_BY(mutex_);
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

absl::Status MayJoin(const Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, Authenticate(backend, request));
  return auth::RequireRoomJoin(claims);
}

// Why a WebSocket was refused: SDKs ask here, since browsers do not tell them.
http::Response Validate(const Backend& backend, const http::Request& request) {
  const absl::Status status = MayJoin(backend, request);
  http::Response response{200, "text/plain", "success", {}};
  if (!status.ok()) response = {401, "text/plain", std::string(Message(status)), {}};
  response.headers.emplace_back("Access-Control-Allow-Origin", "*");
  return response;
}

}  // namespace

void AddSignalRoutes(Backend& backend, std::vector<Route>& routes) {
  for (const char* path : {"/rtc/v1/validate", "/rtc/validate"}) {
    routes.push_back(
        {"GET", path, "Would this token be let in? Asked by LiveKit's SDKs after a refusal",
         "video.roomJoin", nullptr, 200,
         [&backend](const http::Request& request) { return Validate(backend, request); }});
  }
}

void ServeSignalling(Backend& backend, http::Server& server) {
  using Listener = std::shared_ptr<http::WebSocketListener>;
  const auto connect = [&backend, channels = std::make_shared<Channels>()](
                           const http::Request& request, roomv1::OpenSignalling open,
                           const std::shared_ptr<http::WebSocket>& socket) -> Listener {
    if (!MayJoin(backend, request).ok()) return nullptr;
    const trace::Span span = backend.context.tracer().Start(
        open.two_connections() ? "WebSocket /rtc" : "WebSocket /rtc/v1", trace::Kind::kServer,
        TraceContext::Parse(request.Header("traceparent")));
    const TraceScope scope(span.context());
    open.set_token(BearerOf(request));
    auto forward =
        std::make_shared<Forward>(channels, backend.config.rooms_address, std::move(open), socket);
    forward->Start();
    return forward;
  };
  // As LiveKit's servers do; browsers, which are not told, ask /rtc/validate.
  http::WebSocketOptions options;
  options.refuse = [&backend](const http::Request& request) -> std::optional<http::Response> {
    const absl::Status status = MayJoin(backend, request);
    if (status.ok()) return std::nullopt;
    return http::Response{401, "text/plain", std::string(Message(status)), {}};
  };
  server.HandleWebSocket(
      kOne,
      [connect](const http::Request& request, const auto& socket) {
        const auto join = request.query.find("join_request");
        if (join == request.query.end()) return Listener();
        roomv1::OpenSignalling open;
        open.set_join_request(join->second);
        return connect(request, std::move(open), socket);
      },
      options);
  server.HandleWebSocket(
      kTwo,
      [connect](const http::Request& request, const auto& socket) {
        roomv1::OpenSignalling open;
        open.set_two_connections(true);
        for (const char* name : kQuery) {
          if (const auto found = request.query.find(name); found != request.query.end()) {
            (*open.mutable_query())[name] = found->second;
          }
        }
        return connect(request, std::move(open), socket);
      },
      options);
}

}  // namespace parley::api_server
