#pragma once
// grpc.health.v1 as a client outside the project would ask: by method name and wire bytes.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <future>
#include <string>
#include <string_view>
#include <vector>

namespace parley::testing {

// HealthCheckResponse.status of `service` at `address`: 0 UNKNOWN, 1 SERVING, 2 NOT_SERVING; minus
// the gRPC code when the call failed.
inline int HealthOf(const std::string& address, std::string_view service) {
  grpc::GenericStub stub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  std::string request;  // HealthCheckRequest { string service = 1; }
  if (!service.empty()) {
    request = std::string{'\x0a', static_cast<char>(service.size())} + std::string(service);
  }
  const grpc::Slice slice(request);
  grpc::ByteBuffer in(&slice, 1);
  grpc::ByteBuffer out;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &in, &out,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  const grpc::Status status = done.get_future().get();
  if (!status.ok()) return -status.error_code();
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (out.Dump(&slices).ok()) {
    for (const grpc::Slice& part : slices) {
      bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
    }
  }
  return bytes.size() == 2 && bytes[0] == '\x08' ? bytes[1] : 0;  // ServingStatus status = 1
}

}  // namespace parley::testing
