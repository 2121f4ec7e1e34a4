#include "api_server/routes.h"

#include "base/status.h"
#include "base/strings.h"
#include "rpc/channel.h"

namespace parley::api_server {

http::Response Answer(const absl::StatusOr<http::Response>& result) {
  return result.ok() ? *result : ErrorResponse(result.status());
}

std::string BearerOf(const http::Request& request) {
  constexpr std::string_view kScheme = "Bearer ";
  const std::string_view header = request.Header("authorization");
  if (header.substr(0, kScheme.size()) == kScheme)
    return std::string(header.substr(kScheme.size()));
  const auto query = request.query.find("access_token");
  return query == request.query.end() ? std::string() : query->second;
}

absl::StatusOr<auth::Claims> Authenticate(const Backend& backend, const http::Request& request) {
  return backend.context.AuthenticateToken(BearerOf(request));
}

void Prepare(grpc::ClientContext& context, const std::string& bearer, absl::Duration timeout) {
  if (!bearer.empty()) rpc::SetBearer(context, bearer);
  rpc::SetTimeout(context, timeout);
  rpc::SetTrace(context);
}

absl::StatusOr<std::string> PersonToken(const Backend& backend, const auth::Claims& caller,
                                        auth::Claims person) {
  const auto keys = backend.context.keys();
  const auth::ApiKey* key = caller.issuer.empty() ? nullptr : keys->Find(caller.issuer);
  if (key == nullptr) {
    for (const auth::ApiKey& one : keys->keys()) {
      if (key == nullptr && (caller.project.empty() || one.project == caller.project)) key = &one;
    }
  }
  if (key == nullptr)
    return FailedPrecondition("project \"{}\" has no API key to sign with", caller.project);
  person.kind = "standard";
  return auth::Sign(person, *key, backend.config.token_ttl);
}

std::string PublicUrl(const Backend& backend) { return backend.config.public_url; }

absl::StatusOr<int32_t> PageSize(const http::Request& request) {
  const auto it = request.query.find("page_size");
  if (it == request.query.end()) return 100;
  char* end = nullptr;
  const long value = std::strtol(it->second.c_str(), &end, 10);
  if (it->second.empty() || *end != '\0' || value < 1 || value > 500) {
    return InvalidArgument("page_size must be a whole number from 1 to 500");
  }
  return static_cast<int32_t>(value);
}

}  // namespace parley::api_server
