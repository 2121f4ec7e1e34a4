#include "rpc/channel.h"

#include <absl/time/time.h>

#include "rpc/callback_threads.h"
#include "rpc/tls.h"

namespace parley::rpc {
namespace {

constexpr char kTraceparent[] = "traceparent";
// A peer whose host vanished sends no word of it. It is missed after both together.
struct Pings {
  absl::Duration after_silence;
  absl::Duration answer_within;
};
constexpr Pings kUsual = {absl::Seconds(10), absl::Seconds(5)};
// As long as a room server's lease lasts, before whose end nobody could take its rooms over. A
// process may stand still for the second of them.
constexpr Pings kOfCalls = {absl::Seconds(2), absl::Seconds(4)};

std::shared_ptr<grpc::Channel> Make(const std::string& target, const Pings& pings) {
  PrepareCallbackThreads();
  grpc::ChannelArguments arguments;
  arguments.SetLoadBalancingPolicyName("round_robin");
  const auto milliseconds = [](absl::Duration duration) {
    return static_cast<int>(absl::ToInt64Milliseconds(duration));
  };
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, milliseconds(pings.after_silence));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, milliseconds(pings.answer_within));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // No wait, whatever its name: so long an attempt to connect may take. A busy host needs more than
  // a moment, and then calls fail; one that is not there would keep them waiting.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A server sends its clients off now and then (rpc/server.h): they look for new replicas then.
  arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 5'000);
  const ChannelSecurity security = SecurityInUse();
  if (!security.server_name.empty()) arguments.SetSslTargetNameOverride(security.server_name);
  return grpc::CreateCustomChannel(target, security.credentials, arguments);
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target) {
  return Make(target, kUsual);
}
std::shared_ptr<grpc::Channel> MakeCallChannel(const std::string& target) {
  return Make(target, kOfCalls);
}

void SetBearer(grpc::ClientContext& context, std::string_view token) {
  context.AddMetadata("authorization", "Bearer " + std::string(token));
}

void SetTimeout(grpc::ClientContext& context, absl::Duration timeout) {
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout));
}

void SetTrace(grpc::ClientContext& context) {
  if (CurrentTrace().valid()) context.AddMetadata(kTraceparent, CurrentTrace().Traceparent());
}

TraceContext TraceOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find(kTraceparent);
  if (it == metadata.end()) return {};
  return TraceContext::Parse({it->second.data(), it->second.size()});
}

std::string BearerOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find("authorization");
  if (it == metadata.end()) return {};
  const std::string_view value(it->second.data(), it->second.size());
  constexpr std::string_view kScheme = "Bearer ";
  if (value.substr(0, kScheme.size()) != kScheme) return {};
  return std::string(value.substr(kScheme.size()));
}

}  // namespace parley::rpc
