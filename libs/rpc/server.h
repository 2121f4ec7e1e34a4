#pragma once
#include <absl/status/status.h>
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "rpc/reflection.h"
#include "rpc/tls.h"

namespace parley::rpc {

struct ServerOptions {
  std::string address = "127.0.0.1";
  int port = 0;  // 0 = any free one
  int64_t max_message_bytes = 4 << 20;
  const char* port_flag = "--grpc-port";  // named when the port is taken
  TlsFiles tls;                           // plain unless it names a certificate
  // A connection as old as this takes no new calls: its client resolves the name again and finds
  // replicas that were added. Calls under way go on, however long.
  absl::Duration max_connection_age = absl::Minutes(5);
};

// A gRPC server with grpc.health.v1 (services "" = process, "ready" = may take traffic) and
// reflection. Thread-safe.
class Server {
 public:
  Server();
  ~Server();  // as Stop(zero)

  // Services must outlive the server. Unavailable: "port 7100 on 127.0.0.1 is taken; …".
  absl::Status Start(const ServerOptions& options, const std::vector<grpc::Service*>& services);
  int port() const { return port_; }
  void SetReady(bool ready);
  // Waits for calls under way until `grace`, then cancels them. Idempotent.
  void Stop(absl::Duration grace);

 private:
  Reflection reflection_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace parley::rpc
