#pragma once
#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <vector>

namespace parley::api_server {

// Where a pool of agent servers is offered as workers: one file for each LiveKit server and pool.
// It holds a secret, so its mode is checked as that of the keys file.
//
//   url: wss://calls.example.com      # ws, wss, http or https
//   api_key: APIabc                   # of that server
//   api_secret: …
//   agents: [front-desk]              # names by which that server's dispatches ask; at most 100
//   pool: front-desk                  # optional: only its free slots count
//   project: hotel                    # optional; default: default
struct AttachConfig {
  std::string url;  // without a slash at its end
  std::string api_key;
  std::string api_secret;
  std::vector<std::string> agents;
  std::string pool;
  std::string project = "default";
};

//   NotFound, PermissionDenied (mode), InvalidArgument with the file and the field
absl::StatusOr<AttachConfig> LoadAttachConfig(const std::string& path);
//   InvalidArgument  names the field
absl::StatusOr<AttachConfig> ParseAttachConfig(std::string_view yaml);

}  // namespace parley::api_server
