// parley token create
#include <fmt/format.h>

#include <memory>

#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "command.h"

namespace parley::cli {
namespace {

struct NewToken {
  auth::Claims claims;
  std::string agent;
  std::string agent_metadata;
  std::string ttl = "6h";
  bool join = false;
};

// Where LiveKit's clients connect to.
std::string WebSocketUrl(const std::string& server) {
  return server.starts_with("http") ? "ws" + server.substr(4) : server;
}

absl::Status Create(const Command& command, NewToken token) {
  const auto ttl = ParseDuration(token.ttl);
  if (!ttl || *ttl <= absl::ZeroDuration())
    return UsageError("--valid-for must be a duration such as 30m or 6h, not " + token.ttl);
  PARLEY_ASSIGN_OR_RETURN(const auth::ApiKey key, Credentials(ServerUrl(command.server)));
  auth::Claims& claims = token.claims;
  auth::VideoGrant& video = claims.video;
  if (token.join && (video.room.empty() || video.agent)) {
    return UsageError("--join needs --room, and is not for --worker");
  }
  video.room_join = !video.room.empty() && !video.agent;
  if (claims.identity.empty() && video.room_join) claims.identity = "caller-" + RandomBase62(8);
  if (!token.agent.empty()) {
    if (!video.room_join) return UsageError("--agent needs --room: an agent joins a room");
    claims.room_agents.push_back({.agent_name = token.agent,
                                  .metadata = token.agent_metadata,
                                  .attributes = {},
                                  .deployment = {}});
  }
  if (!video.room_join && !video.agent && !video.room_create && !video.room_list &&
      !claims.agent_admin) {
    return UsageError(
        "a token must allow something: --room to join a room, --agent-admin, --room-create, "
        "--room-list or --worker");
  }
  const std::string text = auth::Sign(claims, key, *ttl);
  const std::string url = WebSocketUrl(ServerUrl(command.server));
  if (command.output.json) {
    PrintJson({{"serverUrl", url},
               {"token", text},
               {"identity", claims.identity},
               {"room", video.room},
               {"expiresInSeconds", absl::ToInt64Seconds(*ttl)}});
  } else if (token.join && !command.output.quiet) {
    fmt::print("server URL: {}\ntoken: {}\n", url, text);
  } else {
    fmt::print("{}\n", text);
  }
  return absl::OkStatus();
}

}  // namespace

void AddToken(CLI::App& root, Command& command) {
  CLI::App& noun = *root.add_subcommand("token", "Access tokens");
  auto token = std::make_shared<NewToken>();
  CLI::App* create =
      AddCommand(noun, command, "create", "Sign a token with the key pair of the environment",
                 [&command, token] { return Create(command, *token); });
  auth::Claims& claims = token->claims;
  create->add_flag("--join", token->join,
                   "For a person who joins: prints the server's URL beside the token");
  create->add_option("--room", claims.video.room, "Room that may be joined");
  create->add_option("--identity", claims.identity, "Who the participant is; default: invented");
  create->add_option("--name", claims.name, "Name shown to people");
  create->add_option("--metadata", claims.metadata, "Metadata of the participant");
  create->add_option("--agent", token->agent, "Dispatch this agent, once in the room");
  create->add_option("--agent-metadata", token->agent_metadata, "Metadata of its job");
  create->add_option("--valid-for,--ttl", token->ttl, "Life of the token")->capture_default_str();
  create->add_option("--room-preset", claims.room_preset,
                     "Room configuration of the server's that the room begins with");
  create->add_flag("--room-admin", claims.video.room_admin, "Manage that room");
  create->add_flag("--room-create", claims.video.room_create, "Create rooms, sessions, dispatches");
  create->add_flag("--room-list", claims.video.room_list, "List rooms, jobs, workers, sessions");
  create->add_flag("--agent-admin", claims.agent_admin, "Register and remove agents");
  create->add_flag("--worker", claims.video.agent, "Connect as an agent server");
}

}  // namespace parley::cli
