#pragma once
#include <grpcpp/grpcpp.h>

#include <memory>

namespace parley::rpc {

// gRPC's reflection (v1alpha) for what a server serves, by reactions: gRPC's own in Debian 12 has
// threads of its own, which poll beside all others for as long as the server lives. Must outlive
// the server that is built.
class Reflection {
 public:
  Reflection();
  ~Reflection();
  // Once, before BuildAndStart().
  void AddTo(grpc::ServerBuilder& builder);

 private:
  class Service;
  class Names;
  std::unique_ptr<Service> service_;
};

}  // namespace parley::rpc
