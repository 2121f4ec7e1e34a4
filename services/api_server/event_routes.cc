// /api/events: what happened, page by page, and what happens, as server-sent events.
#include "api_server/event_pump.h"
#include "api_server/routes.h"
#include "base/status.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

using dispatch::v1::WatchEventsRequest;
using dispatch::v1::WatchEventsResponse;

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

absl::StatusOr<http::Response> Watch(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(WatchEventsRequest call, ReadRequest(request));
  // A browser that comes back says how far it had got.
  if (const auto last = request.Header("last-event-id"); !last.empty()) {
    call.set_after_position(std::string(last));
  }
  auto body = std::make_shared<http::BodyStream>();
  const auto write = [body](const dispatch::v1::Event& event) {
    return body->Write(ServerSentEvent(ToJson(event).dump(), event.position()));
  };
  PARLEY_ASSIGN_OR_RETURN(
      const std::shared_ptr<EventPump> pump,
      EventPump::Start(backend, BearerOf(request), call, {write, [body] { body->End(); }}));
  body->OnGone([weak = std::weak_ptr<EventPump>(pump)] {
    if (const auto alive = weak.lock()) alive->Cancel();
  });
  return EventStream(std::move(body));
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
