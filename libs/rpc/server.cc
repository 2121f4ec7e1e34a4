#include "rpc/server.h"

#include <grpc/support/log.h>
#include <grpcpp/health_check_service_interface.h>

#include <cstdlib>
#include <mutex>

#include "base/status.h"
#include "rpc/callback_threads.h"
#include "rpc/locks.h"

namespace parley::rpc {

Server::Server() {
  static std::once_flag once;
  std::call_once(once, [] {
    TurnOffDeadlockDetector();
    grpc::EnableDefaultHealthCheckService(true);
    // gRPC writes lines of its own to standard error; what matters reaches us as a status.
    if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
  });
}

Server::~Server() { Stop(absl::ZeroDuration()); }

absl::Status Server::Start(const ServerOptions& options,
                           const std::vector<grpc::Service*>& services) {
  PrepareCallbackThreads();
  grpc::ServerBuilder builder;
  const std::string address = options.address.find(':') == std::string::npos
                                  ? fmt::format("{}:{}", options.address, options.port)
                                  : fmt::format("[{}]:{}", options.address, options.port);
  builder.AddListeningPort(address, ServerCredentials(options.tls), &port_);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // Whoever asks more often is sent off. Our clients ask every 2 s at most (rpc/channel.cc).
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1'000);
  builder.AddChannelArgument(
      GRPC_ARG_MAX_CONNECTION_AGE_MS,
      static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age)));
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  for (grpc::Service* service : services) builder.RegisterService(service);
  reflection_.AddTo(builder);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    server_.reset();
    return Unavailable(
        "cannot listen on {}: the port is taken or the address is not this host's; choose another "
        "with {}",
        address, options.port_flag);
  }
  SetReady(false);
  return absl::OkStatus();
}

void Server::SetReady(bool ready) {
  if (server_ != nullptr) server_->GetHealthCheckService()->SetServingStatus("ready", ready);
}

void Server::Stop(absl::Duration grace) {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(grace));
  server_->Wait();
  server_.reset();
}

}  // namespace parley::rpc
