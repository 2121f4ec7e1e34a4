#pragma once
#include <absl/status/status.h>
#include <grpcpp/grpcpp.h>

namespace parley::rpc {

// Code for code; reason and metadata travel as parley.common.v1.ErrorInfo in the error details.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace parley::rpc
