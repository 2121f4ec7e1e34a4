#pragma once
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <string>

namespace parley::rpc {

// Asks grpc.health.v1 at "host:port", over TLS where UseTls (rpc/tls.h) says so. OK: it serves.
//   FailedPrecondition  it answers that it does not
//   else what went wrong, as gRPC says it
// Blocks, for `timeout` at most.
absl::Status CheckHealth(const std::string& address, absl::Duration timeout);

}  // namespace parley::rpc
