#include "registry/deployment.h"

#include <algorithm>
#include <charconv>

#include "base/status.h"
#include "base/strings.h"

namespace parley::registry {
namespace {

constexpr int kWhole = 100;  // percent

// FNV-1a with a final mix: the same on every machine, today and after an upgrade.
uint64_t StableHash(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const unsigned char letter : text) hash = (hash ^ letter) * 0x100000001b3;
  hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
  hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
  return hash ^ hash >> 33;
}

template <typename Number>
bool ToNumber(std::string_view text, Number* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

absl::Status Settle(Deployment& deployment) {
  auto& versions = deployment.versions;
  if (versions.size() > kMaxDeployedVersions) {
    return InvalidArgument("{} versions; at most {} serve at once", versions.size(),
                           kMaxDeployedVersions);
  }
  std::ranges::sort(versions, std::ranges::greater(), &VersionShare::version);
  int sum = 0;
  for (size_t i = 0; i < versions.size(); ++i) {
    const auto [version, percent] = versions[i];
    if (version == 0) return InvalidArgument("versions count from 1");
    if (i > 0 && versions[i - 1].version == version) {
      return InvalidArgument("version {} stands here twice", version);
    }
    if (percent < 1 || percent > kWhole) {
      return InvalidArgument("version {}: a share is 1 to 100 percent, not {}", version, percent);
    }
    sum += percent;
  }
  if (versions.empty() || sum == kWhole) return absl::OkStatus();
  return InvalidArgument("the shares make {} percent, not 100", sum);
}

uint64_t Choose(const Deployment& deployment, std::string_view agent_id, std::string_view room,
                std::string_view draw) {
  if (deployment.versions.empty()) return 0;
  if (deployment.versions.size() == 1) return deployment.versions[0].version;
  const std::string_view what = deployment.sticky ? room : draw;
  const int point =
      static_cast<int>(StableHash(fmt::format("{}\n{}", agent_id, what)) % kWhole);  // 0 to 99
  int end = 0;
  for (const VersionShare& share : deployment.versions) {
    end += share.percent;
    if (point < end) return share.version;
  }
  return deployment.versions.back().version;
}

std::string SharesText(const Deployment& deployment) {
  std::string text = deployment.sticky ? "1 " : "0 ";
  for (const VersionShare& share : deployment.versions) {
    if (!text.ends_with(' ')) text += ',';
    text += fmt::format("{}:{}", share.version, share.percent);
  }
  return text;
}

absl::StatusOr<Deployment> ParseShares(std::string_view text) {
  const absl::Status damaged = Internal("a deployment of the agent registry is damaged");
  if (text.size() < 2 || text[1] != ' ' || (text[0] != '0' && text[0] != '1')) return damaged;
  Deployment deployment;
  deployment.sticky = text[0] == '1';
  text.remove_prefix(2);
  if (text.empty()) return deployment;
  for (const std::string& part : Split(text, ',')) {
    const size_t colon = part.find(':');
    VersionShare share;
    if (colon == part.npos || !ToNumber(std::string_view(part).substr(0, colon), &share.version) ||
        !ToNumber(std::string_view(part).substr(colon + 1), &share.percent)) {
      return damaged;
    }
    deployment.versions.push_back(share);
  }
  if (!Settle(deployment).ok()) return damaged;
  return deployment;
}

}  // namespace parley::registry
