#pragma once
// LiveKit's server API speaks Twirp: one POST per call, bodies in protobuf or JSON, errors as
// {"code", "msg", "meta"}.
#include <absl/status/status.h>
#include <absl/time/time.h>
#include <google/protobuf/message.h>

#include <optional>
#include <string_view>

#include "auth/token.h"
#include "http/server.h"

namespace parley::api_server::twirp {

inline constexpr size_t kMaxBodyBytes = 4 << 20;  // the largest call carries 512 KiB of metadata

enum class Form { kProtobuf, kJson };

// Of a Content-Type; nullopt when it is neither.
std::optional<Form> FormOf(std::string_view content_type);

// Fields that are not known here are passed over; JSON may be in camelCase or snake_case.
//   InvalidArgument (reason MALFORMED)  not such a message, or above kMaxBodyBytes
absl::Status Read(Form form, std::string_view body, google::protobuf::Message* message);
// JSON in snake_case with defaults, as LiveKit's server writes it.
http::Response Write(Form form, const google::protobuf::Message& message);
// Always JSON. MALFORMED is the code `malformed`.
http::Response Error(const absl::Status& status);
// There is no such service or method, or the Content-Type is no form of ours.
http::Response BadRoute(std::string_view message);

// What the caller gives us: X-Twirp-Timeout-Ms, within 1 ms and 60 s; default 10 s.
absl::Duration TimeoutOf(const http::Request& request);

// LiveKit's rule: the grant roomAdmin for exactly this room. Unauthenticated (GRANT_MISSING).
absl::Status RequireExactRoom(const auth::Claims& claims, std::string_view room);

}  // namespace parley::api_server::twirp
