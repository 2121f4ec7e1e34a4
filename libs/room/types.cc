#include "room/types.h"

namespace parley::room {

std::string_view Name(Kind kind) {
  switch (kind) {
    case Kind::kStandard:
      return "standard";
    case Kind::kAgent:
      return "agent";
    case Kind::kSip:
      return "sip";
    case Kind::kRecorder:
      return "recorder";
  }
  return "unknown";
}

std::string_view Name(LeaveReason reason) {
  switch (reason) {
    case LeaveReason::kClientInitiated:
      return "client_initiated";
    case LeaveReason::kDuplicateIdentity:
      return "duplicate_identity";
    case LeaveReason::kServerShutdown:
      return "server_shutdown";
    case LeaveReason::kParticipantRemoved:
      return "participant_removed";
    case LeaveReason::kRoomDeleted:
      return "room_deleted";
    case LeaveReason::kConnectionLost:
      return "connection_lost";
    case LeaveReason::kRoomClosed:
      return "room_closed";
    case LeaveReason::kReplaced:
      return "replaced";
    case LeaveReason::kAgentError:
      return "agent_error";
  }
  return "unknown";
}

}  // namespace parley::room
