#pragma once
// Where clients find a relay (TURN) when their network lets them reach nothing else, and the
// credentials that it takes for a while: those of coturn's `use-auth-secret`, which the relay
// checks without asking anybody.
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <parley/livekit/v1/rtc.pb.h>

#include <string>
#include <string_view>
#include <vector>

namespace parley::room_server {

class TurnServers {
 public:
  TurnServers() = default;  // none
  // `urls`: "turn:host:port?transport=udp" and the like; "stun:…" needs no credentials.
  // `secret_file`: its first line is the secret that the relays share.
  //   InvalidArgument  a URL is none, or relays are named without a secret
  //   NotFound         the file cannot be read
  static absl::StatusOr<TurnServers> Create(std::vector<std::string> urls,
                                            const std::string& secret_file, absl::Duration ttl);

  // What `identity` is told at `now`.
  template <typename Response>
  void Tell(std::string_view identity, absl::Time now, Response* response) const {
    if (!urls_.empty()) Fill(identity, now, response->add_ice_servers());
  }

 private:
  void Fill(std::string_view identity, absl::Time now, livekit::v1::ICEServer* out) const;

  std::vector<std::string> urls_;
  std::string secret_;
  absl::Duration ttl_;
};

}  // namespace parley::room_server
