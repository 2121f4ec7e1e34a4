// /api/events: what happened, page by page, and what happens, as server-sent events.
#include "api_server/routes.h"
#include "base/mutex.h"
#include "base/status.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

using dispatch::v1::WatchEventsRequest;
using dispatch::v1::WatchEventsResponse;

constexpr absl::Duration kFirstWord = absl::Seconds(5);

absl::StatusOr<WatchEventsRequest> ReadRequest(const http::Request& request) {
  WatchEventsRequest call;
  for (const auto& [name, value] : request.query) {
    if (name == "after" || name == "page_token") call.set_after_position(value);
    if (name == "dispatch") call.set_dispatch_id(value);
    if (name == "room") call.set_room(value);
  }
  return call;
}

absl::StatusOr<http::Response> List(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(WatchEventsRequest call, ReadRequest(request));
  PARLEY_ASSIGN_OR_RETURN(const int32_t limit, PageSize(request));
  if (call.after_position().empty()) call.set_after_position("0");
  call.set_past_only(true);
  grpc::ClientContext context;
  Prepare(context, BearerOf(request), absl::Seconds(20));
  const auto reader = backend.dispatch->WatchEvents(&context, call);
  Json events = Json::array();
  std::string next;
  WatchEventsResponse response;
  bool more = false;
  while (reader->Read(&response)) {
    if (static_cast<int32_t>(events.size()) == limit) {
      more = true;
      context.TryCancel();
      break;
    }
    next = response.event().position();
    events.push_back(ToJson(response.event()));
  }
  while (more && reader->Read(&response)) {  // what was on its way when it was cut off
  }
  const absl::Status status = rpc::FromGrpcStatus(reader->Finish());
  if (!more) PARLEY_RETURN_IF_ERROR(status);
  return JsonResponse(
      {{"events", std::move(events)}, {"nextPageToken", more ? next : ""}, {"position", next}});
}

// One watcher: reads from the broker, writes to its client, and ends with either.
class Pump : public grpc::ClientReadReactor<WatchEventsResponse> {
 public:
  // Blocks until the broker has taken the call, so that its refusal is the answer.
  static absl::StatusOr<std::shared_ptr<http::BodyStream>> Start(Backend& backend,
                                                                 const std::string& bearer,
                                                                 const WatchEventsRequest& call) {
    const auto pump = std::shared_ptr<Pump>(new Pump(call));
    pump->self_ = pump;
    Prepare(pump->context_, bearer, absl::Hours(24));
    backend.dispatch->async()->WatchEvents(&pump->context_, &pump->request_, pump.get());
    pump->StartRead(&pump->response_);
    pump->StartCall();
    pump->body_->OnGone([weak = std::weak_ptr<Pump>(pump)] {
      if (const auto alive = weak.lock()) alive->context_.TryCancel();
    });
    absl::Status status = pump->WaitTaken();
    if (!status.ok()) {
      pump->context_.TryCancel();
      return status;
    }
    return pump->body_;
  }

 private:
  explicit Pump(const WatchEventsRequest& call)
      : request_(call), body_(std::make_shared<http::BodyStream>()) {}

  absl::Status WaitTaken() {
    const absl::Time until = absl::Now() + kFirstWord;
    MutexLock lock(&mutex_);
    while (!taken_ && absl::Now() < until) changed_.WaitFor(&mutex_, until - absl::Now());
    return taken_ ? status_ : DeadlineExceeded("the dispatch broker does not answer");
  }
  void Taken(const absl::Status& status) {
    MutexLock lock(&mutex_);
    if (taken_) return;
    taken_ = true;
    status_ = status;
    changed_.SignalAll();
  }

  void OnReadInitialMetadataDone(bool ok) override {
    if (ok) Taken(absl::OkStatus());
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone says why
    const auto& event = response_.event();
    if (!body_->Write(
            fmt::format("id: {}\ndata: {}\n\n", event.position(), ToJson(event).dump()))) {
      return context_.TryCancel();
    }
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    Taken(rpc::FromGrpcStatus(status));
    body_->End();
    self_.reset();  // perhaps the last owner: nothing may follow
  }

  grpc::ClientContext context_;
  const WatchEventsRequest request_;
  WatchEventsResponse response_;
  const std::shared_ptr<http::BodyStream> body_;
  std::shared_ptr<Pump> self_;  // until OnDone
  Mutex mutex_;
  CondVar changed_;
  bool taken_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<http::Response> Watch(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(WatchEventsRequest call, ReadRequest(request));
  // A browser that comes back says how far it had got.
  if (const auto last = request.Header("last-event-id"); !last.empty()) {
    call.set_after_position(std::string(last));
  }
  http::Response response;
  response.content_type = "text/event-stream";
  response.headers = {{"cache-control", "no-store"}, {"x-accel-buffering", "no"}};
  PARLEY_ASSIGN_OR_RETURN(response.stream, Pump::Start(backend, BearerOf(request), call));
  return response;
}

}  // namespace

void AddEventRoutes(Backend& backend, std::vector<Route>& routes) {
  const auto add = [&](const char* pattern, const char* summary, auto handler) {
    routes.push_back(
        {"GET", pattern, summary, "video.roomList", nullptr, 200,
         [&backend, handler](const http::Request& r) { return Answer(handler(backend, r)); }});
  };
  add("/api/events",
      "What happened to dispatches, oldest first; ?after=, ?dispatch=, ?room=", List);
  add("/api/events/watch",
      "The same as server-sent events, from now on or ?after= a position (0: from the oldest kept)",
      Watch);
}

}  // namespace parley::api_server
