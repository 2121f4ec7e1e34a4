#pragma once
#include <absl/status/status.h>
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/trace_context.h"

namespace parley::rpc {

// A channel to "host:port" (or unix:/path) with keepalive, round-robin over resolved addresses and
// reconnects within 2 s, secured as UseTls (rpc/tls.h) says. A server that vanished without a word
// is missed after 15 s. Never in a job process or a zygote.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target);
// The same to a room server, for what carries calls: missed after 6 s.
std::shared_ptr<grpc::Channel> MakeCallChannel(const std::string& target);

// Adds `authorization: Bearer …`.
void SetBearer(grpc::ClientContext& context, std::string_view token);
void SetTimeout(grpc::ClientContext& context, absl::Duration timeout);
// Adds the `traceparent` of the calling thread's trace, if it works for one.
void SetTrace(grpc::ClientContext& context);
// The trace of an incoming call; not valid when it names none.
TraceContext TraceOf(const grpc::ServerContextBase& context);
// The bearer token of an incoming call; "" when there is none.
std::string BearerOf(const grpc::ServerContextBase& context);

}  // namespace parley::rpc
