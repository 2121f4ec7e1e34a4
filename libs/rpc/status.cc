#include "rpc/status.h"

#include <google/protobuf/any.pb.h>
#include <parley/common/v1/common.pb.h>

#include "base/status.h"
#include "rpc/details.pb.h"

namespace parley::rpc {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const ErrorReason reason = ReasonOf(status);
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message(Message(status));
  if (reason.reason.empty()) return {code, message};
  common::v1::ErrorInfo info;
  info.set_reason(reason.reason);
  for (const auto& [key, value] : reason.metadata) (*info.mutable_metadata())[key] = value;
  Details details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);
  details.add_details()->PackFrom(info);
  return {code, message, details.SerializeAsString()};
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  Details details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const auto& any : details.details()) {
    common::v1::ErrorInfo info;
    if (!any.UnpackTo(&info)) continue;
    return WithReason(result, info.reason(), {info.metadata().begin(), info.metadata().end()});
  }
  return result;
}

}  // namespace parley::rpc
