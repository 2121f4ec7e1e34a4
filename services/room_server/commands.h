#pragma once
#include <parley/room/v1/room.pb.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "room/room.h"
#include "room_server/convert.h"

namespace parley::room_server {

// Carries out what a participant's client asked for. A published track is answered for the caller
// to keep; `result` is set when the client must be told: of errors (request 0 = the command that
// failed carries no number), and of an UpdateSelf that carries a number. `leave` gives the seat up.
struct CommandOutcome {
  std::optional<room::Track> published;
  std::optional<pb::CommandResult> result;
};
CommandOutcome Execute(room::Participant& participant, const pb::ParticipantCommand& command);

// Puts JoinOptions on top of what the token says.
//   PermissionDenied  metadata or attributes without canUpdateOwnMetadata
absl::Status Apply(const pb::JoinOptions& options, room::JoinRequest& join);

}  // namespace parley::room_server
