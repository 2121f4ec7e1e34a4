#pragma once
// Which versions of an agent serve new dispatches. Pure.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace parley::registry {

struct VersionShare {
  uint64_t version = 0;
  int percent = 0;  // 1 to 100

  bool operator==(const VersionShare&) const = default;
};

struct Deployment {
  std::vector<VersionShare> versions;   // newest version first; empty: whatever is newest serves
  bool sticky = false;                  // a room gets the same version as long as the shares stay
  uint64_t revision = 0;                // rises with each change; 0: never set
  absl::Time time = absl::UnixEpoch();  // of the change

  bool operator==(const Deployment&) const = default;
};

inline constexpr size_t kMaxDeployedVersions = 8;

// Sorts the versions. InvalidArgument: too many, one twice, a share out of range, or a sum other
// than 100.
absl::Status Settle(Deployment& deployment);

// The version that serves a dispatch to `room`; 0 = the newest. `draw` decides where the deployment
// is not sticky: any text that differs from dispatch to dispatch. A room that has the newest of the
// versions keeps it when that one's share grows.
uint64_t Choose(const Deployment& deployment, std::string_view agent_id, std::string_view room,
                std::string_view draw);

// "<sticky 0|1> <version>:<percent>,…", and "0 " where the newest serves.
std::string SharesText(const Deployment& deployment);
// Internal: what this program did not write.
absl::StatusOr<Deployment> ParseShares(std::string_view text);

}  // namespace parley::registry
