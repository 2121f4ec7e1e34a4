#pragma once
// The room server: live rooms, the media of their participants, and the fence of jobs.
#include <absl/time/time.h>

#include <string>
#include <vector>

#include "redis/redis.h"
#include "room_redis/directory.h"
#include "service/service.h"

namespace parley {

struct RoomServerConfig {
  service::CommonConfig common;
  redis::Config redis;
  std::string media_url;  // "" = address:port
  std::string dispatch_address = "127.0.0.1:7100";
  absl::Duration empty_timeout = absl::Seconds(300);
  absl::Duration departure_timeout = absl::Seconds(20);
  absl::Duration lease = room_redis::kDefaultLease;
  absl::Duration batch_tick = absl::Milliseconds(10);
  int max_rooms = 100'000;
  std::string admission_log;
  std::string presets_file;
  std::string rtc_address;  // "" = the server's own
  int rtc_udp_port = 7882;  // 0 = any free one
  // SDKs try for longer, but somebody who is gone should not seem to be there.
  absl::Duration rtc_resume = absl::Seconds(20);
  std::vector<std::string> rtc_announce;  // empty = the address, or those of this machine
  int rtc_udp_port_last = 0;              // 0 = rtc_udp_port alone
  int rtc_tcp_port = -1;                  // -1 = none, 0 = any free one
  std::string rtc_stun_server;            // "" = none is asked
  std::vector<std::string> turn_urls;
  std::string turn_secret_file;
  // As long as a person may stay without a reconnection: relays forget an allocation whose
  // credentials are over.
  absl::Duration turn_ttl = absl::Hours(12);

  void Bind(config::Table& table);
};

namespace room_server {

// Serves until a stop is asked for. The exit code of main.
int Run(const RoomServerConfig& config, service::Context& context);
// As above; `started` hears the ports (they may be 0 in the configuration).
int Run(const RoomServerConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started);

}  // namespace room_server
}  // namespace parley
