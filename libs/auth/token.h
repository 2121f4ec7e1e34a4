#pragma once
// Access tokens: LiveKit JWTs (HS256) with our own claims added, and the keys that sign them.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace parley::auth {

// One API key of `keys.yaml`. A key belongs to one project.
struct ApiKey {
  std::string key;
  std::string secret;
  std::string project = "default";
  std::vector<std::string> agent_names;  // workers of this key may register only these; empty = any
  bool development = false;              // the well-known pair devkey/secret: loopback only
};

// What a project may use, of `keys.yaml`. 0 = any number.
struct ProjectQuota {
  std::string project;
  int weight = 1;      // 1 to 1000: its share of the slots when projects compete for them
  int max_jobs = 0;    // running at once in one pool; more wait
  int max_queued = 0;  // waiting in one pool; more are refused

  bool operator==(const ProjectQuota&) const = default;
};

// The keys of an installation. Immutable; reloading makes a new one. Thread-safe.
//
// File (mode 0600, refused when readable by others; a mounted file that is not ours may be readable
// by our group):
//   cluster_key: <at least 32 characters>     # signs tokens between services
//   keys:
//     - {key: APIabc, secret: …, project: hotel, agent_names: [front-desk]}
//   projects:                                 # optional
//     - {project: hotel, weight: 4, max_jobs: 200, max_queued: 1000}
class KeyRing {
 public:
  // NotFound, PermissionDenied (mode), InvalidArgument with file, line and field.
  static absl::StatusOr<std::shared_ptr<const KeyRing>> Load(const std::string& path);
  // devkey/secret of project "default" and a cluster key drawn at random (or given).
  static std::shared_ptr<const KeyRing> Development(std::string cluster_key = {});
  // From LIVEKIT_API_KEY-style variables: one key of project "default".
  static std::shared_ptr<const KeyRing> Of(std::vector<ApiKey> keys, std::string cluster_key,
                                           std::vector<ProjectQuota> quotas = {});

  const ApiKey* Find(std::string_view key) const;  // lives as long as the ring
  const std::vector<ApiKey>& keys() const { return keys_; }
  const std::vector<ProjectQuota>& quotas() const { return quotas_; }  // of projects that have one
  const std::string& cluster_key() const { return cluster_key_; }
  bool has_development_key() const;

 private:
  std::vector<ApiKey> keys_;
  std::vector<ProjectQuota> quotas_;
  std::string cluster_key_;
};

// Grants under `video`. Unset optionals mean LiveKit's defaults: publish and subscribe true, data
// as publish, the rest false.
struct VideoGrant {
  bool room_create = false;
  bool room_list = false;
  bool room_admin = false;
  bool room_join = false;
  bool agent = false;
  bool hidden = false;
  bool recorder = false;
  bool room_record = false;
  bool ingress_admin = false;
  std::string room;
  std::string destination_room;  // forward and move
  std::optional<bool> can_publish;
  std::optional<bool> can_subscribe;
  std::optional<bool> can_publish_data;
  std::optional<bool> can_update_own_metadata;
  std::optional<bool> can_subscribe_metrics;
  std::optional<bool> can_manage_agent_session;
  std::vector<std::string>
      can_publish_sources;  // camera, microphone, screen_share, screen_share_audio
};

// Our claim `parley.job`: this token admits one attempt of a job.
struct JobGrant {
  std::string job_id;
  uint64_t fencing_token = 0;
  std::string worker_id;
  std::string instance;
};

struct RoomAgent {  // roomConfig.agents[]
  std::string agent_name;
  std::string metadata;
  std::map<std::string, std::string> attributes;
  std::string deployment;
  bool never_restart = false;  // restartPolicy JRP_NEVER
};

// The agents of a roomConfig as protobuf writes it to JSON. What is no such thing counts as absent.
std::vector<RoomAgent> ReadRoomAgents(std::string_view room_config_json);

// Grants that LiveKit's tokens know and nothing here needs yet: kept, so that a token that is read
// and signed again is the same.
struct OtherGrants {
  bool sip_admin = false;
  bool sip_call = false;
  bool agent_simulation_admin = false;
  bool agent_database_admin = false;
  bool inference_perform = false;
  bool observability_write = false;

  bool operator==(const OtherGrants&) const = default;
};

struct Claims {
  std::string issuer;    // API key; empty for service tokens
  std::string identity;  // sub
  std::string name;
  std::string kind;                       // standard, agent, sip, …
  std::vector<std::string> kind_details;  // cloud_agent, forwarded, …
  std::string metadata;
  std::map<std::string, std::string> attributes;
  VideoGrant video;
  bool agent_admin = false;  // agent.admin
  OtherGrants other;
  std::string service;  // parley.service: the caller is one of our services, e.g. "dispatch_broker"
  std::optional<JobGrant> job;
  std::vector<RoomAgent> room_agents;
  std::string room_config_json;  // roomConfig as it came in; "" when absent
  std::string room_preset;       // a room configuration of the server's; roomConfig goes over it
  std::string session_id;        // parley.session: AS_…
  std::string sha256;            // webhooks
  absl::Time not_before = absl::InfinitePast();
  absl::Time expires = absl::InfiniteFuture();
  // Filled by Verify:
  std::string project;  // of the key; service tokens: claim parley.project, may be empty
  std::vector<std::string> agent_names;  // of the key

  bool is_service() const { return !service.empty(); }
};

// Signs with the key's secret. `ttl` from now; iat and nbf are set.
std::string Sign(const Claims& claims, const ApiKey& key, absl::Duration ttl,
                 const Clock& clock = Clock::Real());
// A token between services (HS256 with the cluster key; iss = "parley").
std::string SignService(const Claims& claims, const KeyRing& ring, absl::Duration ttl,
                        const Clock& clock = Clock::Real());

// Checks form, algorithm (HS256 only), signature, nbf and exp (60 s leeway), and reads the claims.
//   Unauthenticated with a reason and a text naming the cause: TOKEN_MISSING, TOKEN_MALFORMED,
//   TOKEN_UNSIGNED, KEY_UNKNOWN, SIGNATURE_WRONG, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID. Never quotes
//   the token or a secret.
absl::StatusOr<Claims> Verify(std::string_view token, const KeyRing& ring,
                              const Clock& clock = Clock::Real());

// What a call needs. Missing → Unauthenticated (reason GRANT_MISSING) naming the grant, as LiveKit
// does. A service token has every grant but roomJoin.
absl::Status RequireAgentAdmin(const Claims& claims);
absl::Status RequireRoomAdmin(const Claims& claims,
                              std::string_view room);  // roomAdmin of that room, or roomCreate
absl::Status RequireRoomCreate(const Claims& claims);
absl::Status RequireRoomList(const Claims& claims);
absl::Status RequireWorker(const Claims& claims);    // video.agent
absl::Status RequireRoomJoin(const Claims& claims);  // and a room, and an identity
absl::Status RequireService(const Claims& claims);

}  // namespace parley::auth
