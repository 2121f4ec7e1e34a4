#pragma once
// A gateway's own service for protocols that stand before it.
#include <grpcpp/grpcpp.h>

#include <memory>

namespace parley::gateway {

// Serves within the process, on no port; what comes through it is what comes from outside, tokens
// and limits included. The service outlives it.
class InnerServer {
 public:
  explicit InnerServer(grpc::Service& service);
  ~InnerServer();  // as Stop()
  // Cancels what is under way and waits until the service has done with it. Idempotent.
  void Stop();

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace parley::gateway
