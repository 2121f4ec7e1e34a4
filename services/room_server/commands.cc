#include "room_server/commands.h"

#include "base/status.h"

namespace parley::room_server {
namespace {

pb::CommandResult Result(uint64_t request, const absl::Status& status) {
  pb::CommandResult result;
  result.set_request(request);
  result.set_code(static_cast<int32_t>(status.code()));
  result.set_message(std::string(Message(status)));
  return result;
}

absl::StatusOr<room::Track> Publish(room::Participant& participant, const pb::PublishTrack& ask) {
  PARLEY_ASSIGN_OR_RETURN(const room::PublishRequest request, FromProto(ask));
  return participant.Publish(request);
}

}  // namespace

CommandOutcome Execute(room::Participant& participant, const pb::ParticipantCommand& command) {
  CommandOutcome outcome;
  absl::Status status;
  using Command = pb::ParticipantCommand;
  switch (command.command_case()) {
    case Command::kPublish: {
      auto track = Publish(participant, command.publish());
      if (track.ok()) {
        outcome.published = *std::move(track);
      } else {
        status = Annotate(track.status(), "publish " + command.publish().cid());
      }
      break;
    }
    case Command::kUnpublish:
      status = participant.Unpublish(command.unpublish().track_sid());
      break;
    case Command::kSetMuted:
      status = participant.SetMuted(command.set_muted().track_sid(), command.set_muted().muted());
      break;
    case Command::kSubscription:
      status = participant.SetSubscribed(command.subscription().track_sid(),
                                         command.subscription().subscribe());
      break;
    case Command::kUpdate:
      status = participant.Update(FromProto(command.update()));
      if (command.update().request() != 0 || !status.ok()) {
        outcome.result = Result(command.update().request(), status);
      }
      return outcome;
    case Command::kData:
      status = participant.SendData(FromProto(command.data()));
      break;
    case Command::kText:
      status = participant.SendText(FromProto(command.text()));
      break;
    case Command::kBytes:
      status = participant.SendBytes(FromProto(command.bytes()));
      break;
    case Command::kRpc:
      if (auto packet = FromProto(command.rpc()); packet.ok()) {
        status = participant.SendRpc(*std::move(packet));
      } else {
        status = packet.status();
      }
      break;
    case Command::kLeave:
      participant.Leave(FromProto(command.leave().reason()), "left");
      break;
    case Command::COMMAND_NOT_SET:
      status = Error(absl::StatusCode::kUnimplemented, "this server does not know the command");
      break;
  }
  if (!status.ok()) outcome.result = Result(0, status);
  return outcome;
}

absl::Status Apply(const pb::JoinOptions& options, room::JoinRequest& join) {
  join.auto_subscribe = options.auto_subscribe();
  if (!options.identity().empty()) {
    if (!join.job) return PermissionDenied("only the agent of a job may choose its identity");
    join.identity = options.identity();
  }
  if (options.metadata().empty() && options.attributes().empty() && options.name().empty()) {
    return absl::OkStatus();
  }
  if (!join.permission.can_update_metadata) {
    return PermissionDenied(
        "the token does not grant canUpdateOwnMetadata, which name, metadata and attributes of a "
        "join need");
  }
  if (!options.name().empty()) join.name = options.name();
  if (!options.metadata().empty()) join.metadata = options.metadata();
  for (const auto& [key, value] : options.attributes()) join.attributes[key] = value;
  return absl::OkStatus();
}

}  // namespace parley::room_server
