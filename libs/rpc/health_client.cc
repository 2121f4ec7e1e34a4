#include "rpc/health_client.h"

#include <grpcpp/generic/generic_stub.h>

#include <future>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::rpc {

// By wire bytes: an empty HealthCheckRequest is the whole server's, and the answer that it serves
// is field 1 with value 1.
absl::Status CheckHealth(const std::string& address, absl::Duration timeout) {
  constexpr std::string_view kServing{"\x08\x01", 2};
  grpc::GenericStub stub(MakeChannel(address));
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  const grpc::Slice nothing;
  grpc::ByteBuffer in(&nothing, 1);
  grpc::ByteBuffer out;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &in, &out,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  PARLEY_RETURN_IF_ERROR(FromGrpcStatus(done.get_future().get()));
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (out.Dump(&slices).ok()) {
    for (const grpc::Slice& part : slices) {
      bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
    }
  }
  return bytes == kServing ? absl::OkStatus()
                           : FailedPrecondition("it says that it does not serve");
}

}  // namespace parley::rpc
