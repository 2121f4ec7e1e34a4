#include "gateway/inner_server.h"

#include <chrono>

#include "base/check.h"

namespace parley::gateway {

InnerServer::InnerServer(grpc::Service& service) {
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  server_ = builder.BuildAndStart();
  PARLEY_CHECK(server_ != nullptr);
  channel_ = server_->InProcessChannel(grpc::ChannelArguments());
}

InnerServer::~InnerServer() { Stop(); }

void InnerServer::Stop() {
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

}  // namespace parley::gateway
