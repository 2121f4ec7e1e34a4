// /api/metrics/summary: the numbers of a dashboard that has no Prometheus.
#include "api_server/routes.h"
#include "base/status.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

constexpr int kPageSize = 500;
constexpr int kMaxPages = 20;  // beyond 10,000 of a kind the numbers are lower bounds

// Walks the pages of a list; false in `*whole` when there were more than are read.
template <typename Request, typename Response, typename Ask, typename See>
absl::Status Walk(const std::string& bearer, bool* whole, Ask ask, See see) {
  Request call;
  call.set_page_size(kPageSize);
  for (int page = 0; page < kMaxPages; ++page) {
    grpc::ClientContext context;
    Prepare(context, bearer);
    Response response;
    PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(ask(&context, call, &response)));
    see(response);
    if (response.next_page_token().empty()) return absl::OkStatus();
    call.set_page_token(response.next_page_token());
  }
  *whole = false;
  return absl::OkStatus();
}

absl::StatusOr<Json> Workers(Backend& backend, const std::string& bearer) {
  grpc::ClientContext context;
  Prepare(context, bearer);
  dispatch::v1::ListWorkersResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->ListWorkers(&context, {}, &response)));
  int draining = 0, slots = 0, used = 0;
  for (const auto& worker : response.workers()) {
    draining += worker.draining() ? 1 : 0;
    slots += worker.draining() ? 0 : worker.slots();
    used += worker.slots_used();
  }
  return Json{{"count", response.workers_size()},
              {"draining", draining},
              {"slots", slots},
              {"slotsUsed", used}};
}

absl::StatusOr<http::Response> Summary(Backend& backend, const http::Request& request) {
  const std::string bearer = BearerOf(request);
  bool whole = true;
  PARLEY_ASSIGN_OR_RETURN(const Json workers, Workers(backend, bearer));

  int agents = 0;
  const absl::Status listed =
      (Walk<registry::v1::ListAgentsRequest, registry::v1::ListAgentsResponse>(
          bearer, &whole,
          [&](auto* context, auto& call, auto* response) {
            return backend.registry->ListAgents(context, call, response);
          },
          [&](const auto& response) { agents += response.agents_size(); }));
  if (!listed.ok() && !absl::IsUnauthenticated(listed)) return listed;

  std::map<std::string, int> sessions = {{"PENDING", 0}, {"RUNNING", 0}};
  PARLEY_RETURN_IF_ERROR(
      (Walk<dispatch::v1::ListSessionsRequest, dispatch::v1::ListSessionsResponse>(
          bearer, &whole,
          [&](auto* context, auto& call, auto* response) {
            return backend.dispatch->ListSessions(context, call, response);
          },
          [&](const auto& response) {
            for (const auto& session : response.sessions()) ++sessions[session.state()];
          })));

  grpc::ClientContext context;
  Prepare(context, bearer);
  room::v1::ListRoomsResponse rooms;
  PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(backend.rooms->ListRooms(&context, {}, &rooms)));
  int people = 0, agents_in_rooms = 0;
  for (const auto& room : rooms.rooms()) {
    people += room.num_participants();
    agents_in_rooms += room.num_agents();
  }
  return JsonResponse(
      {{"agents", listed.ok() ? Json(agents) : Json(nullptr)},  // null: not for this token
       {"workers", workers},
       {"sessions", {{"pending", sessions["PENDING"]}, {"running", sessions["RUNNING"]}}},
       {"rooms", {{"count", rooms.rooms_size()}, {"people", people}, {"agents", agents_in_rooms}}},
       {"complete", whole}});
}

}  // namespace

void AddSummaryRoutes(Backend& backend, std::vector<Route>& routes) {
  routes.push_back({"GET", "/api/metrics/summary",
                    "What there is and what runs, as numbers for a dashboard", "video.roomList",
                    nullptr, 200,
                    [&backend](const http::Request& r) { return Answer(Summary(backend, r)); }});
}

}  // namespace parley::api_server
