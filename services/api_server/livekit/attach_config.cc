#include "api_server/livekit/attach_config.h"

#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <fstream>
#include <iterator>
#include <set>

#include "base/status.h"
#include "http/websocket_client.h"

namespace parley::api_server {
namespace {

constexpr size_t kMaxAgents = 100;
constexpr size_t kMaxName = 256;
constexpr size_t kMaxFile = 64 << 10;

absl::StatusOr<std::string> Text(const YAML::Node& root, const char* name, bool required) {
  const YAML::Node node = root[name];
  if (!node && !required) return std::string();
  if (!node || !node.IsScalar() || node.Scalar().empty() || node.Scalar().size() > 4096) {
    return InvalidArgument("{}: must be a text", name);
  }
  return node.Scalar();
}

absl::StatusOr<AttachConfig> Read(const YAML::Node& root) {
  static const std::set<std::string> kFields = {"url",    "api_key", "api_secret",
                                                "agents", "pool",    "project"};
  if (!root.IsMap()) return InvalidArgument("must be a map with `url`, `api_key`, …");
  for (const auto& field : root) {
    if (!field.first.IsScalar() || !kFields.contains(field.first.Scalar())) {
      return InvalidArgument("{}: there is no such field",
                             field.first.IsScalar() ? field.first.Scalar() : std::string("?"));
    }
  }
  AttachConfig config;
  PARLEY_ASSIGN_OR_RETURN(config.url, Text(root, "url", true));
  while (config.url.ends_with('/')) config.url.pop_back();
  if (const auto url = http::ParseWebSocketUrl(config.url); !url.ok()) {
    return Annotate(url.status(), "url");
  }
  PARLEY_ASSIGN_OR_RETURN(config.api_key, Text(root, "api_key", true));
  PARLEY_ASSIGN_OR_RETURN(config.api_secret, Text(root, "api_secret", true));
  PARLEY_ASSIGN_OR_RETURN(config.pool, Text(root, "pool", false));
  PARLEY_ASSIGN_OR_RETURN(const std::string project, Text(root, "project", false));
  if (!project.empty()) config.project = project;
  const YAML::Node agents = root["agents"];
  if (!agents || !agents.IsSequence() || agents.size() == 0 || agents.size() > kMaxAgents) {
    return InvalidArgument("agents: must be a list of 1 to {} names", kMaxAgents);
  }
  for (const YAML::Node& name : agents) {
    if (!name.IsScalar() || name.Scalar().empty() || name.Scalar().size() > kMaxName) {
      return InvalidArgument("agents: must be a list of names");
    }
    config.agents.push_back(name.Scalar());
  }
  return config;
}

}  // namespace

absl::StatusOr<AttachConfig> ParseAttachConfig(std::string_view yaml) {
  try {
    return Read(YAML::Load(std::string(yaml)));
  } catch (const YAML::Exception& error) {
    return InvalidArgument("line {}: {}", error.mark.line + 1, error.msg);
  }
}

absl::StatusOr<AttachConfig> LoadAttachConfig(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return NotFound("{}: no such file", path);
  const mode_t mode = info.st_mode & 0777;
  const mode_t refused = info.st_uid == geteuid() ? 077 : 037;
  if ((mode & refused) != 0) {
    return PermissionDenied("{}: others may read it (mode {:04o}): chmod 600 {}", path, mode, path);
  }
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file || text.size() > kMaxFile)
    return InvalidArgument("{}: not readable, or too long", path);
  auto config = ParseAttachConfig(text);
  return config.ok() ? config : Annotate(config.status(), path);
}

}  // namespace parley::api_server
