#pragma once
// The death notice: what the zygote hands to the program it runs when its agent server has died.
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "rpc/tls.h"

namespace parley::agent {

inline constexpr char kDeathReportFlag[] = "--report-death-of-agent-server";

struct DeathNotice {
  std::string broker_address;
  std::string token;  // allows the report; outlives the notice
  std::string worker_id;
  std::string instance;
  uint64_t connect_seq = 0;
  rpc::TlsFiles tls = {};

  std::string Serialize() const;
  static absl::StatusOr<DeathNotice> Parse(std::string_view text);
};

// Reads a notice from standard input and tells the broker, again and again for up to 8 s while it
// is out of reach. Returns the exit code.
int ReportDeath();

}  // namespace parley::agent
