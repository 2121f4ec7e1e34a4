#include "auth/token.h"
#include "base/status.h"

namespace parley::auth {
namespace {

absl::Status Missing(std::string_view grant, std::string_view what_for) {
  return WithReason(
      Unauthenticated("the token lacks the grant {}, which {} needs", grant, what_for),
      "GRANT_MISSING", {{"grant", std::string(grant)}});
}

}  // namespace

absl::Status RequireAgentAdmin(const Claims& claims) {
  if (claims.agent_admin || claims.is_service()) return absl::OkStatus();
  return Missing("agent.admin", "this call");
}

absl::Status RequireRoomAdmin(const Claims& claims, std::string_view room) {
  if (claims.is_service() || claims.video.room_create) return absl::OkStatus();
  if (!claims.video.room_admin) return Missing("video.roomAdmin (or roomCreate)", "this call");
  if (claims.video.room == room) return absl::OkStatus();
  return WithReason(
      Unauthenticated("the token's grant video.roomAdmin is for an other room than \"{}\"", room),
      "GRANT_MISSING", {{"grant", "video.roomAdmin"}, {"room", std::string(room)}});
}

absl::Status RequireRoomCreate(const Claims& claims) {
  if (claims.video.room_create || claims.is_service()) return absl::OkStatus();
  return Missing("video.roomCreate", "this call");
}

absl::Status RequireRoomList(const Claims& claims) {
  if (claims.video.room_list || claims.is_service()) return absl::OkStatus();
  return Missing("video.roomList", "a list");
}

absl::Status RequireWorker(const Claims& claims) {
  if (claims.video.agent || claims.is_service()) return absl::OkStatus();
  return Missing("video.agent", "an agent server");
}

absl::Status RequireRoomJoin(const Claims& claims) {
  if (!claims.video.room_join) return Missing("video.roomJoin", "joining a room");
  if (claims.video.room.empty()) return Missing("video.room", "joining a room");
  if (claims.identity.empty()) {
    return WithReason(Unauthenticated("the token names no identity (claim sub)"), "GRANT_MISSING",
                      {{"grant", "sub"}});
  }
  return absl::OkStatus();
}

absl::Status RequireService(const Claims& claims) {
  if (claims.is_service()) return absl::OkStatus();
  return WithReason(Unauthenticated("this call is for the cluster's own services"), "GRANT_MISSING",
                    {{"grant", "parley.service"}});
}

}  // namespace parley::auth
