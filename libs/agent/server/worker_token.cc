#include "agent/server/worker_token.h"

#include "auth/token.h"

namespace parley::agent {
namespace {
constexpr absl::Duration kWorkerTokenLife = absl::Hours(6);  // a death notice may be old
}  // namespace

std::string WorkerToken(const AgentServerConfig& config, service::Context& context,
                        const std::string& worker_id) {
  const auto ring = context.keys();
  auth::Claims claims;
  claims.identity = worker_id;
  claims.kind = "agent";
  claims.video.agent = true;
  if (!config.serves_configured) {
    const auth::ApiKey* key = ring->Find(context.config().api_key);
    if (key == nullptr && ring->keys().size() == 1) key = &ring->keys().front();
    if (key != nullptr) return auth::Sign(claims, *key, kWorkerTokenLife);
  }
  claims.service = "agent-server";
  return auth::SignService(claims, *ring, kWorkerTokenLife);
}

}  // namespace parley::agent
