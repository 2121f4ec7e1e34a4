#include "auth/token.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "base/strings.h"

namespace parley::auth {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kServiceIssuer = "parley";
constexpr absl::Duration kLeeway = absl::Seconds(60);
constexpr size_t kMaxTokenBytes = 1 << 20;
constexpr int kMaxNesting = 32;

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string Base64Url(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 4 / 3 + 3);
  uint32_t buffer = 0;
  int bits = 0;
  for (const unsigned char byte : bytes) {
    buffer = (buffer << 8 | byte) & 0xffffff;
    for (bits += 8; bits >= 6;) {
      bits -= 6;
      out.push_back(kAlphabet[buffer >> bits & 63]);
    }
  }
  if (bits > 0) out.push_back(kAlphabet[buffer << (6 - bits) & 63]);
  return out;
}

int SixBitsOf(char letter) {
  if (letter >= 'A' && letter <= 'Z') return letter - 'A';
  if (letter >= 'a' && letter <= 'z') return letter - 'a' + 26;
  if (letter >= '0' && letter <= '9') return letter - '0' + 52;
  return letter == '-' ? 62 : letter == '_' ? 63 : -1;
}

std::optional<std::string> FromBase64Url(std::string_view text) {
  if (text.size() % 4 == 1) return std::nullopt;
  std::string out;
  out.reserve(text.size() * 3 / 4);
  uint32_t buffer = 0;
  int bits = 0;
  for (const char letter : text) {
    const int value = SixBitsOf(letter);
    if (value < 0) return std::nullopt;
    buffer = (buffer << 6 | static_cast<uint32_t>(value)) & 0xffffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out.push_back(static_cast<char>(buffer >> bits & 255));
    }
  }
  return out;
}

std::string Hmac(std::string_view secret, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(), &size);
  return {reinterpret_cast<const char*>(digest.data()), size};
}

bool SameBytes(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

// ---- reading ----

// Claims of the wrong type count as absent: a token grants what it says plainly.
std::string TextOf(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

// LiveKit's SDKs write lowerCamelCase, protobuf's own JSON printers may write snake_case.
std::string EitherTextOf(const Json& object, const char* camel, const char* snake) {
  std::string text = TextOf(object, camel);
  return text.empty() ? TextOf(object, snake) : text;
}

bool FlagOf(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

std::optional<bool> OptionalFlagOf(const Json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end() || !it->is_boolean()) return std::nullopt;
  return it->get<bool>();
}

const Json& ObjectOf(const Json& object, const char* name) {
  static const Json kEmpty = Json::object();
  const auto it = object.find(name);
  return it != object.end() && it->is_object() ? *it : kEmpty;
}

std::map<std::string, std::string> TextsOf(const Json& object, const char* name) {
  std::map<std::string, std::string> texts;
  for (const auto& [key, value] : ObjectOf(object, name).items()) {
    if (value.is_string()) texts[key] = value.get<std::string>();
  }
  return texts;
}

std::vector<std::string> ListOf(const Json& object, const char* name) {
  std::vector<std::string> texts;
  const auto it = object.find(name);
  if (it == object.end() || !it->is_array()) return texts;
  for (const Json& item : *it) {
    if (item.is_string()) texts.push_back(item.get<std::string>());
  }
  return texts;
}

std::optional<absl::Time> TimeOf(const Json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end() || !it->is_number()) return std::nullopt;
  const double seconds = it->get<double>();
  if (!(seconds >= 0 && seconds < 1e12)) return std::nullopt;
  return absl::UnixEpoch() + absl::Seconds(seconds);
}

VideoGrant ReadVideo(const Json& json) {
  VideoGrant video;
  video.room_create = FlagOf(json, "roomCreate");
  video.room_list = FlagOf(json, "roomList");
  video.room_admin = FlagOf(json, "roomAdmin");
  video.room_join = FlagOf(json, "roomJoin");
  video.agent = FlagOf(json, "agent");
  video.hidden = FlagOf(json, "hidden");
  video.recorder = FlagOf(json, "recorder");
  video.room_record = FlagOf(json, "roomRecord");
  video.ingress_admin = FlagOf(json, "ingressAdmin");
  video.room = TextOf(json, "room");
  video.destination_room = TextOf(json, "destinationRoom");
  video.can_publish = OptionalFlagOf(json, "canPublish");
  video.can_subscribe = OptionalFlagOf(json, "canSubscribe");
  video.can_publish_data = OptionalFlagOf(json, "canPublishData");
  video.can_update_own_metadata = OptionalFlagOf(json, "canUpdateOwnMetadata");
  video.can_subscribe_metrics = OptionalFlagOf(json, "canSubscribeMetrics");
  video.can_manage_agent_session = OptionalFlagOf(json, "canManageAgentSession");
  video.can_publish_sources = ListOf(json, "canPublishSources");
  return video;
}

// protobuf's JSON has enums by name or by number.
bool NeverRestarts(const Json& agent) {
  for (const char* name : {"restartPolicy", "restart_policy"}) {
    const auto it = agent.find(name);
    if (it != agent.end()) return *it == "JRP_NEVER" || *it == 1;
  }
  return false;
}

OtherGrants ReadOther(const Json& json) {
  const Json& sip = ObjectOf(json, "sip");
  const Json& agent = ObjectOf(json, "agent");
  return {.sip_admin = FlagOf(sip, "admin"),
          .sip_call = FlagOf(sip, "call"),
          .agent_simulation_admin = FlagOf(agent, "simulationAdmin"),
          .agent_database_admin = FlagOf(agent, "databaseAdmin"),
          .inference_perform = FlagOf(ObjectOf(json, "inference"), "perform"),
          .observability_write = FlagOf(ObjectOf(json, "observability"), "write")};
}

std::vector<RoomAgent> ReadAgents(const Json& room_config) {
  std::vector<RoomAgent> agents;
  const auto list = room_config.find("agents");
  if (list == room_config.end() || !list->is_array()) return agents;
  for (const Json& json : *list) {
    if (!json.is_object()) continue;
    RoomAgent agent;
    agent.agent_name = EitherTextOf(json, "agentName", "agent_name");
    agent.metadata = TextOf(json, "metadata");
    agent.attributes = TextsOf(json, "attributes");
    agent.deployment = TextOf(json, "deployment");
    agent.never_restart = NeverRestarts(json);
    agents.push_back(std::move(agent));
  }
  return agents;
}

JobGrant ReadJob(const Json& json) {
  JobGrant job;
  job.job_id = TextOf(json, "id");
  job.worker_id = TextOf(json, "worker");
  job.instance = TextOf(json, "instance");
  if (const auto it = json.find("token"); it != json.end() && it->is_number_unsigned()) {
    job.fencing_token = it->get<uint64_t>();
  }
  return job;
}

// What an API key's owner may say about itself; `internal` adds what only our services may say.
Claims ReadClaims(const Json& json, bool internal) {
  Claims claims;
  claims.issuer = internal ? std::string() : TextOf(json, "iss");
  claims.identity = TextOf(json, "sub");
  if (claims.identity.empty()) claims.identity = TextOf(json, "identity");
  if (claims.identity.empty()) claims.identity = TextOf(json, "jti");
  claims.name = TextOf(json, "name");
  claims.kind = TextOf(json, "kind");
  claims.metadata = TextOf(json, "metadata");
  claims.attributes = TextsOf(json, "attributes");
  claims.video = ReadVideo(ObjectOf(json, "video"));
  claims.kind_details = ListOf(json, "kindDetails");
  claims.agent_admin = FlagOf(ObjectOf(json, "agent"), "admin");
  claims.other = ReadOther(json);
  claims.room_preset = EitherTextOf(json, "roomPreset", "room_preset");
  claims.sha256 = TextOf(json, "sha256");
  const Json& room_config =
      json.contains("roomConfig") ? ObjectOf(json, "roomConfig") : ObjectOf(json, "room_config");
  if (!room_config.empty()) {
    claims.room_config_json = room_config.dump(-1, ' ', false, Json::error_handler_t::replace);
    claims.room_agents = ReadAgents(room_config);
  }
  const Json& ours = ObjectOf(json, "parley");
  claims.session_id = TextOf(ours, "session");
  if (!internal) return claims;
  claims.service = TextOf(ours, "service");
  claims.project = TextOf(ours, "project");
  if (const Json& job = ObjectOf(ours, "job"); !job.empty()) claims.job = ReadJob(job);
  return claims;
}

// ---- writing ----

void PutText(Json& object, const char* name, const std::string& value) {
  if (!value.empty()) object[name] = value;
}

void PutFlag(Json& object, const char* name, bool value) {
  if (value) object[name] = true;
}

Json VideoJson(const VideoGrant& video) {
  Json json = Json::object();
  PutFlag(json, "roomCreate", video.room_create);
  PutFlag(json, "roomList", video.room_list);
  PutFlag(json, "roomAdmin", video.room_admin);
  PutFlag(json, "roomJoin", video.room_join);
  PutFlag(json, "agent", video.agent);
  PutFlag(json, "hidden", video.hidden);
  PutFlag(json, "recorder", video.recorder);
  PutFlag(json, "roomRecord", video.room_record);
  PutFlag(json, "ingressAdmin", video.ingress_admin);
  PutText(json, "room", video.room);
  PutText(json, "destinationRoom", video.destination_room);
  if (video.can_publish) json["canPublish"] = *video.can_publish;
  if (video.can_subscribe) json["canSubscribe"] = *video.can_subscribe;
  if (video.can_publish_data) json["canPublishData"] = *video.can_publish_data;
  if (video.can_update_own_metadata) json["canUpdateOwnMetadata"] = *video.can_update_own_metadata;
  if (video.can_subscribe_metrics) json["canSubscribeMetrics"] = *video.can_subscribe_metrics;
  if (video.can_manage_agent_session) {
    json["canManageAgentSession"] = *video.can_manage_agent_session;
  }
  if (!video.can_publish_sources.empty()) json["canPublishSources"] = video.can_publish_sources;
  return json;
}

Json RoomConfigJson(const Claims& claims) {
  Json json = Json::parse(claims.room_config_json, nullptr, false);
  if (!json.is_object()) json = Json::object();
  if (claims.room_agents.empty()) return json;
  Json& agents = json["agents"] = Json::array();
  for (const RoomAgent& agent : claims.room_agents) {
    Json one = {{"agentName", agent.agent_name}};
    PutText(one, "metadata", agent.metadata);
    PutText(one, "deployment", agent.deployment);
    if (agent.never_restart) one["restartPolicy"] = "JRP_NEVER";
    if (!agent.attributes.empty()) one["attributes"] = agent.attributes;
    agents.push_back(std::move(one));
  }
  return json;
}

void PutOther(Json& json, const Claims& claims) {
  const OtherGrants& other = claims.other;
  const auto put = [&json](const char* area, const char* grant, bool value) {
    if (value) json[area][grant] = true;
  };
  put("agent", "admin", claims.agent_admin);
  put("agent", "simulationAdmin", other.agent_simulation_admin);
  put("agent", "databaseAdmin", other.agent_database_admin);
  put("sip", "admin", other.sip_admin);
  put("sip", "call", other.sip_call);
  put("inference", "perform", other.inference_perform);
  put("observability", "write", other.observability_write);
}

Json OursJson(const Claims& claims, bool internal) {
  Json json = Json::object();
  PutText(json, "session", claims.session_id);
  if (!internal) return json;
  PutText(json, "service", claims.service);
  PutText(json, "project", claims.project);
  if (claims.job) {
    json["job"] = {{"id", claims.job->job_id},
                   {"token", claims.job->fencing_token},
                   {"worker", claims.job->worker_id},
                   {"instance", claims.job->instance}};
  }
  return json;
}

std::string SignWith(const Claims& claims, std::string_view issuer, std::string_view secret,
                     bool internal, absl::Duration ttl, const Clock& clock) {
  const absl::Time now = clock.Now();
  Json json = {{"iss", issuer},
               {"iat", absl::ToUnixSeconds(now)},
               {"nbf", absl::ToUnixSeconds(now)},
               {"exp", absl::ToUnixSeconds(now + ttl)}};
  PutText(json, "sub", claims.identity);
  PutText(json, "name", claims.name);
  PutText(json, "kind", claims.kind);
  PutText(json, "metadata", claims.metadata);
  PutText(json, "sha256", claims.sha256);
  if (!claims.attributes.empty()) json["attributes"] = claims.attributes;
  if (Json video = VideoJson(claims.video); !video.empty()) json["video"] = std::move(video);
  if (!claims.kind_details.empty()) json["kindDetails"] = claims.kind_details;
  PutText(json, "roomPreset", claims.room_preset);
  PutOther(json, claims);
  if (Json config = RoomConfigJson(claims); !config.empty()) json["roomConfig"] = std::move(config);
  if (Json ours = OursJson(claims, internal); !ours.empty()) json["parley"] = std::move(ours);
  std::string token = Base64Url(R"({"alg":"HS256","typ":"JWT"})");
  token += "." + Base64Url(json.dump(-1, ' ', false, Json::error_handler_t::replace));
  return token + "." + Base64Url(Hmac(secret, token));
}

// ---- checking ----

template <typename... Args>
absl::Status Refuse(std::string_view reason, fmt::format_string<Args...> format, Args&&... args) {
  return WithReason(Unauthenticated(format, std::forward<Args>(args)...), reason);
}

// One part of a token as a JSON object.
std::optional<Json> Decode(std::string_view part) {
  const std::optional<std::string> text = FromBase64Url(part);
  if (!text || !JsonNestsWithin(*text, kMaxNesting)) return std::nullopt;
  Json json = Json::parse(*text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  return json;
}

absl::Status CheckHeader(std::string_view part) {
  const std::optional<Json> header = Decode(part);
  if (!header) return Refuse("TOKEN_MALFORMED", "the token's header is not a JSON object");
  const std::string algorithm = TextOf(*header, "alg");
  if (algorithm == "HS256") return absl::OkStatus();
  if (algorithm.empty() || ToLower(algorithm) == "none") {
    return Refuse("TOKEN_UNSIGNED", "the token is not signed; sign it with HS256");
  }
  return Refuse("TOKEN_MALFORMED", "the token is signed with an algorithm other than HS256");
}

absl::Status CheckTimes(const Json& json, Claims* claims, absl::Time now) {
  const std::optional<absl::Time> expires = TimeOf(json, "exp");
  if (!expires) return Refuse("TOKEN_MALFORMED", "the token has no expiry (claim exp)");
  claims->expires = *expires;
  claims->not_before = TimeOf(json, "nbf").value_or(absl::InfinitePast());
  if (now > claims->expires + kLeeway) {
    return Refuse("TOKEN_EXPIRED", "the token expired at {}",
                  absl::FormatTime(claims->expires, absl::UTCTimeZone()));
  }
  if (now < claims->not_before - kLeeway) {
    return Refuse("TOKEN_NOT_YET_VALID",
                  "the token is valid only from {} on; are the clocks right?",
                  absl::FormatTime(claims->not_before, absl::UTCTimeZone()));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<RoomAgent> ReadRoomAgents(std::string_view room_config_json) {
  if (!JsonNestsWithin(room_config_json, kMaxNesting)) return {};
  const Json json = Json::parse(room_config_json, nullptr, false);
  return json.is_object() ? ReadAgents(json) : std::vector<RoomAgent>();
}

std::string Sign(const Claims& claims, const ApiKey& key, absl::Duration ttl, const Clock& clock) {
  return SignWith(claims, key.key, key.secret, false, ttl, clock);
}

std::string SignService(const Claims& claims, const KeyRing& ring, absl::Duration ttl,
                        const Clock& clock) {
  return SignWith(claims, kServiceIssuer, ring.cluster_key(), true, ttl, clock);
}

absl::StatusOr<Claims> Verify(std::string_view token, const KeyRing& ring, const Clock& clock) {
  if (token.empty()) return Refuse("TOKEN_MISSING", "no token: send `authorization: Bearer …`");
  const size_t first = token.find('.');
  const size_t last = token.rfind('.');
  if (token.size() > kMaxTokenBytes || first == std::string_view::npos || first == last ||
      token.find('.', first + 1) != last) {
    return Refuse("TOKEN_MALFORMED", "the token is not a JWT (three parts with dots between)");
  }
  PARLEY_RETURN_IF_ERROR(CheckHeader(token.substr(0, first)));
  if (last + 1 == token.size()) {
    return Refuse("TOKEN_UNSIGNED", "the token is not signed; sign it with HS256");
  }
  const std::optional<Json> json = Decode(token.substr(first + 1, last - first - 1));
  const std::optional<std::string> signature = FromBase64Url(token.substr(last + 1));
  if (!json || !signature)
    return Refuse("TOKEN_MALFORMED", "the token's parts are not base64url JSON");

  const std::string issuer = TextOf(*json, "iss");
  const bool internal = issuer == kServiceIssuer && !ring.cluster_key().empty();
  const ApiKey* key = internal ? nullptr : ring.Find(issuer);
  if (!internal && key == nullptr) {
    return Refuse("KEY_UNKNOWN", "the token's API key (claim iss) is not known here");
  }
  const std::string expected =
      Hmac(internal ? ring.cluster_key() : key->secret, token.substr(0, last));
  if (!SameBytes(expected, *signature)) {
    return Refuse("SIGNATURE_WRONG", "the token's signature does not match its API key's secret");
  }
  Claims claims = ReadClaims(*json, internal);
  PARLEY_RETURN_IF_ERROR(CheckTimes(*json, &claims, clock.Now()));
  if (key != nullptr) {
    claims.project = key->project;
    claims.agent_names = key->agent_names;
  }
  return claims;
}

}  // namespace parley::auth
