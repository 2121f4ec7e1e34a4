#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <set>

#include "auth/token.h"
#include "base/ids.h"
#include "base/status.h"

namespace parley::auth {
namespace {

constexpr size_t kMinClusterKey = 32;
constexpr std::string_view kProjectLetters = "abcdefghijklmnopqrstuvwxyz0123456789-_";  // of keys
constexpr size_t kMinSecret = 16;
constexpr int kMaxCount = 1'000'000;  // of jobs in a quota
constexpr std::string_view kDevelopmentKey = "devkey";
constexpr std::string_view kDevelopmentSecret = "secret";

// Reads one keys file; every error names file, line and field.
class KeysFile {
 public:
  explicit KeysFile(const std::string& path) : path_(path) {}

  absl::Status Read(const YAML::Node& root) {
    if (!root.IsMap()) return Bad(root, "", "must be a map with `keys` and `cluster_key`");
    PARLEY_RETURN_IF_ERROR(OnlyFields(root, "", {"cluster_key", "keys", "projects"}));
    PARLEY_RETURN_IF_ERROR(Text(root, "", "cluster_key", &cluster_key));
    if (cluster_key.size() < kMinClusterKey) {
      return Bad(root["cluster_key"], "cluster_key",
                 "must have at least 32 characters (openssl rand -hex 32 makes one)");
    }
    const YAML::Node list = root["keys"];
    if (!list || !list.IsSequence() || list.size() == 0) {
      return Bad(list ? list : root, "keys", "must be a list of at least one key");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      PARLEY_RETURN_IF_ERROR(ReadKey(list[i], fmt::format("keys[{}]", i)));
    }
    const YAML::Node projects = root["projects"];
    if (!projects) return absl::OkStatus();
    if (!projects.IsSequence()) return Bad(projects, "projects", "must be a list");
    for (size_t i = 0; i < projects.size(); ++i) {
      PARLEY_RETURN_IF_ERROR(ReadQuota(projects[i], fmt::format("projects[{}]", i)));
    }
    return absl::OkStatus();
  }

  std::vector<ApiKey> keys;
  std::vector<ProjectQuota> quotas;
  std::string cluster_key;

 private:
  absl::Status ReadKey(const YAML::Node& node, const std::string& at) {
    if (!node.IsMap()) return Bad(node, at, "must be a map with `key` and `secret`");
    PARLEY_RETURN_IF_ERROR(OnlyFields(node, at + ".", {"key", "secret", "project", "agent_names"}));
    ApiKey key;
    PARLEY_RETURN_IF_ERROR(Text(node, at + ".", "key", &key.key));
    PARLEY_RETURN_IF_ERROR(Text(node, at + ".", "secret", &key.secret));
    if (node["project"]) PARLEY_RETURN_IF_ERROR(Text(node, at + ".", "project", &key.project));
    PARLEY_RETURN_IF_ERROR(CheckProject(node, at, key.project));
    key.development = key.key == kDevelopmentKey && key.secret == kDevelopmentSecret;
    if (key.key == "parley") return Bad(node["key"], at + ".key", "the name parley is reserved");
    if (key.secret.size() < kMinSecret && !key.development) {
      return Bad(node["secret"], at + ".secret", "must have at least 16 characters");
    }
    if (!names_.insert(key.key).second) return Bad(node["key"], at + ".key", "stands here twice");
    if (const YAML::Node names = node["agent_names"]) {
      if (!names.IsSequence()) return Bad(names, at + ".agent_names", "must be a list of names");
      for (const YAML::Node& name : names) {
        if (!name.IsScalar() || name.Scalar().empty()) {
          return Bad(name, at + ".agent_names", "must be a list of names");
        }
        key.agent_names.push_back(name.Scalar());
      }
    }
    keys.push_back(std::move(key));
    return absl::OkStatus();
  }

  absl::Status ReadQuota(const YAML::Node& node, const std::string& at) {
    if (!node.IsMap()) return Bad(node, at, "must be a map with `project`");
    PARLEY_RETURN_IF_ERROR(
        OnlyFields(node, at + ".", {"project", "weight", "max_jobs", "max_queued"}));
    ProjectQuota quota;
    PARLEY_RETURN_IF_ERROR(Text(node, at + ".", "project", &quota.project));
    PARLEY_RETURN_IF_ERROR(CheckProject(node, at, quota.project));
    if (!quota_projects_.insert(quota.project).second) {
      return Bad(node["project"], at + ".project", "stands here twice");
    }
    PARLEY_RETURN_IF_ERROR(Number(node, at + ".", "weight", 1, 1000, &quota.weight));
    PARLEY_RETURN_IF_ERROR(Number(node, at + ".", "max_jobs", 0, kMaxCount, &quota.max_jobs));
    PARLEY_RETURN_IF_ERROR(Number(node, at + ".", "max_queued", 0, kMaxCount, &quota.max_queued));
    quotas.push_back(std::move(quota));
    return absl::OkStatus();
  }

  absl::Status CheckProject(const YAML::Node& node, const std::string& at,
                            const std::string& project) {
    if (project.size() <= 63 && project.find_first_not_of(kProjectLetters) == project.npos) {
      return absl::OkStatus();
    }
    return Bad(node["project"], at + ".project", "must be 1 to 63 of a to z, 0 to 9, - and _");
  }

  // Leaves `out` as it is when the field is missing.
  absl::Status Number(const YAML::Node& map, const std::string& at, const char* field, int lowest,
                      int highest, int* out) {
    const YAML::Node node = map[field];
    if (!node) return absl::OkStatus();
    const std::string text = node.IsScalar() ? node.Scalar() : "";
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < lowest ||
        value > highest) {
      return Bad(node, at + field, fmt::format("must be a number from {} to {}", lowest, highest));
    }
    *out = value;
    return absl::OkStatus();
  }

  absl::Status Text(const YAML::Node& map, const std::string& at, const char* field,
                    std::string* out) {
    const YAML::Node node = map[field];
    if (!node) return Bad(map, at + field, "is missing");
    if (!node.IsScalar() || node.Scalar().empty()) return Bad(node, at + field, "must be text");
    *out = node.Scalar();
    return absl::OkStatus();
  }

  absl::Status OnlyFields(const YAML::Node& map, const std::string& at,
                          const std::set<std::string>& known) {
    std::set<std::string> seen;
    for (const auto& entry : map) {
      const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : "?";
      if (!known.contains(name)) return Bad(entry.first, at + name, "is not a known field");
      if (!seen.insert(name).second) return Bad(entry.first, at + name, "stands here twice");
    }
    return absl::OkStatus();
  }

  absl::Status Bad(const YAML::Node& node, std::string_view field, std::string_view what) {
    const int line = node && !node.Mark().is_null() ? node.Mark().line + 1 : 1;
    if (field.empty()) return InvalidArgument("{}:{}: {}", path_, line, what);
    return InvalidArgument("{}:{}: {}: {}", path_, line, field, what);
  }

  const std::string path_;
  std::set<std::string> names_;
  std::set<std::string> quota_projects_;
};

// Others may not read the file at all. Our own group may only when the file is not ours: that is
// how a mounted secret reaches a process that does not run as root.
absl::Status CheckMode(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return NotFound("{}: cannot read the keys file: {}", path, std::strerror(errno));
  }
  const mode_t mode = info.st_mode & 0777;
  const mode_t refused = info.st_uid == geteuid() ? 077 : 037;
  if ((mode & refused) != 0) {
    return PermissionDenied("{}: others may read it (mode {:04o}): chmod 600 {}", path, mode, path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const KeyRing>> KeyRing::Load(const std::string& path) {
  PARLEY_RETURN_IF_ERROR(CheckMode(path));
  KeysFile file(path);
  try {
    PARLEY_RETURN_IF_ERROR(file.Read(YAML::LoadFile(path)));
  } catch (const YAML::BadFile&) {
    return NotFound("{}: cannot read the keys file", path);
  } catch (const YAML::Exception& error) {
    return InvalidArgument("{}:{}: {}", path, error.mark.line + 1, error.msg);
  }
  return Of(std::move(file.keys), std::move(file.cluster_key), std::move(file.quotas));
}

std::shared_ptr<const KeyRing> KeyRing::Development(std::string cluster_key) {
  ApiKey key;
  key.key = kDevelopmentKey;
  key.secret = kDevelopmentSecret;
  key.development = true;
  return Of({std::move(key)}, cluster_key.empty() ? RandomHex(32) : std::move(cluster_key));
}

std::shared_ptr<const KeyRing> KeyRing::Of(std::vector<ApiKey> keys, std::string cluster_key,
                                           std::vector<ProjectQuota> quotas) {
  auto ring = std::make_shared<KeyRing>();
  ring->keys_ = std::move(keys);
  ring->quotas_ = std::move(quotas);
  ring->cluster_key_ = std::move(cluster_key);
  return ring;
}

const ApiKey* KeyRing::Find(std::string_view key) const {
  for (const ApiKey& one : keys_) {
    if (one.key == key) return &one;
  }
  return nullptr;
}

bool KeyRing::has_development_key() const {
  for (const ApiKey& one : keys_) {
    if (one.development) return true;
  }
  return false;
}

}  // namespace parley::auth
