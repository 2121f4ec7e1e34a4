// parley doctor: looks at a deployment from outside and says what to fix. It changes nothing.
#include <absl/time/clock.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>

#include "auth/token.h"
#include "base/ip.h"
#include "base/status.h"
#include "base/strings.h"
#include "operation.h"
#include "redis/redis.h"
#include "rpc/health_client.h"

namespace parley::cli {
namespace {

constexpr double kMaxSkewS = 1;
constexpr double kDateS = 1;       // what a Date header leaves open
constexpr double kMaxRedisMs = 5;  // of one round trip; a create takes a few
constexpr auto kTimeout = absl::Seconds(3);
constexpr int kAdminAbove = 1000;  // a service's admin port is its gRPC port and this
constexpr size_t kMinSecret = 32;

struct Options {
  std::string redis;
  std::vector<std::string> sentinels;
  std::string keys_file;
  std::string host = "127.0.0.1";  // of the services, where no variable names one
  int port_offset = 0;
};

enum class Level { kOk, kWarn, kFail };

class Findings {
 public:
  void Ok(std::string what, std::string detail) { Add(Level::kOk, what, detail, ""); }
  void Warn(std::string what, std::string detail, std::string fix) {
    Add(Level::kWarn, std::move(what), std::move(detail), std::move(fix));
  }
  void Fail(std::string what, std::string detail, std::string fix) {
    Add(Level::kFail, std::move(what), std::move(detail), std::move(fix));
  }

  absl::Status Print(const Output& output) const {
    static constexpr const char* kNames[] = {"ok", "warn", "fail"};
    int warned = 0;
    int failed = 0;
    Json list = Json::array();
    for (const Finding& f : all_) {
      warned += f.level == Level::kWarn ? 1 : 0;
      failed += f.level == Level::kFail ? 1 : 0;
      const char* name = kNames[static_cast<int>(f.level)];
      list.push_back({{"level", name}, {"check", f.what}, {"detail", f.detail}, {"fix", f.fix}});
      if (output.json || output.quiet) continue;
      fmt::print("{:<5} {}: {}\n", name, f.what, f.detail);
      if (!f.fix.empty()) fmt::print("      → {}\n", f.fix);
    }
    if (output.json)
      PrintJson({{"failed", failed}, {"warned", warned}, {"checks", list}});
    else if (!output.quiet)
      fmt::print("{} checks, {} failed, {} warned\n", all_.size(), failed, warned);
    return failed == 0 ? absl::OkStatus()
                       : FailedPrecondition("{} of {} checks failed", failed, all_.size());
  }

 private:
  struct Finding {
    Level level;
    std::string what, detail, fix;
  };
  void Add(Level level, std::string what, std::string detail, std::string fix) {
    all_.push_back({level, std::move(what), std::move(detail), std::move(fix)});
  }
  std::vector<Finding> all_;
};

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : value;
}

// ---- Redis ----

// "name:value" lines of INFO.
std::map<std::string, std::string> Fields(std::string_view info) {
  std::map<std::string, std::string> fields;
  for (const std::string& line : Split(info, '\n')) {
    const size_t colon = line.find(':');
    if (colon != std::string::npos)
      fields[line.substr(0, colon)] = std::string(Trim(line.substr(colon + 1)));
  }
  return fields;
}

void CheckDurability(const std::map<std::string, std::string>& info, redis::Pool& pool,
                     Findings& findings) {
  const auto field = [&](const char* name) {
    const auto it = info.find(name);
    return it == info.end() ? std::string() : it->second;
  };
  if (field("aof_enabled") == "1") {
    findings.Ok("redis durability", "append-only file is on");
  } else {
    findings.Fail("redis durability", "no append-only file: a restart loses what was not saved",
                  "set appendonly yes, appendfsync everysec");
  }
  if (field("aof_last_write_status") == "err" || field("rdb_last_bgsave_status") == "err")
    findings.Fail("redis disk", "its last write failed", "free the disk of Redis");
  if (field("role") != "master")
    findings.Fail("redis role", "this is a replica", "name the master, or the Sentinels");
  if (field("connected_slaves") == "0")
    findings.Warn("redis replicas", "none: the machine of Redis is a single point of failure",
                  "add a replica and Sentinels for what must not stop");
  const auto policy = pool.Command({"CONFIG", "GET", "maxmemory-policy"});
  if (!policy.ok() || policy->elements.size() < 2) return;  // managed services refuse CONFIG
  if (policy->elements[1].text == "noeviction") {
    findings.Ok("redis memory", "it evicts nothing");
  } else {
    findings.Fail("redis memory", "maxmemory-policy is " + policy->elements[1].text,
                  "set maxmemory-policy noeviction: an evicted job is a lost call");
  }
}

void CheckRedisClock(const redis::Reply& time, Findings& findings) {
  if (time.elements.size() != 2) return;
  double seconds = 0;
  const std::string text = time.elements[0].text + "." + [&] {
    std::string micros = time.elements[1].text;
    return std::string(6 - std::min<size_t>(6, micros.size()), '0') + micros;
  }();
  std::from_chars(text.data(), text.data() + text.size(), seconds);
  const double skew = std::abs(seconds - absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  const std::string detail = fmt::format("{:.3f} s apart from this machine's", skew);
  if (skew > kMaxSkewS)
    findings.Warn("redis clock", detail,
                  "run NTP on both; tokens expire by the clocks of services");
  else
    findings.Ok("redis clock", detail);
}

void CheckRedis(redis::Config config, Findings& findings) {
  const std::string address = config.Where();
  config.password = Environment("PARLEY_REDIS_PASSWORD");
  config.sentinel_password = Environment("PARLEY_REDIS_SENTINEL_PASSWORD");
  config.connections = 1;
  config.connect_timeout = config.command_timeout = kTimeout;
  redis::Pool pool(config, log::Logger::ToStderr(log::Format::kText, log::Level::kError, "doctor"));
  const auto info = pool.Command({"INFO"});
  if (!info.ok()) {
    findings.Fail("redis", fmt::format("{}: {}", address, Message(info.status())),
                  config.sentinels.empty()
                      ? "start it, or correct the address, the password, the network policy"
                      : "do the Sentinels answer, know that master and reach it?");
    return;
  }
  const auto fields = Fields(info->text);
  const auto version = fields.find("redis_version");
  const std::string number = version == fields.end() ? "0" : version->second;
  if (std::atoi(number.c_str()) >= 7)
    findings.Ok("redis", fmt::format("{} answers, version {}", address, number));
  else
    findings.Fail("redis", "version " + number, "use Redis 7: the scripts need it");
  constexpr int kRounds = 20;
  const absl::Time start = absl::Now();
  for (int i = 0; i < kRounds; ++i)
    if (!pool.Ping().ok()) return findings.Fail("redis", "a PING failed", "see its log");
  const double ms = absl::ToDoubleMilliseconds(absl::Now() - start) / kRounds;
  const std::string detail = fmt::format("{:.2f} ms a round trip", ms);
  if (ms > kMaxRedisMs)
    findings.Warn("redis latency", detail, "put it nearer: each dispatch takes a few round trips");
  else
    findings.Ok("redis latency", detail);
  CheckDurability(fields, pool, findings);
  if (const auto time = pool.Command({"TIME"}); time.ok()) CheckRedisClock(*time, findings);
}

// ---- keys ----

void CheckKeys(const std::string& path, Findings& findings) {
  const auto ring = auth::KeyRing::Load(path);
  if (!ring.ok()) {
    findings.Fail("keys", std::string(Message(ring.status())), "see docker/keys.example.yaml");
    return;
  }
  if ((*ring)->has_development_key())
    return findings.Fail("keys", "the development pair is in it",
                         "remove it: everybody knows its secret");
  bool good = (*ring)->cluster_key().size() >= kMinSecret;
  for (const auth::ApiKey& key : (*ring)->keys()) good = good && key.secret.size() >= kMinSecret;
  if (!good)
    findings.Warn("keys", "a secret or the cluster key is shorter than 32 characters",
                  "openssl rand -hex 32");
  else
    findings.Ok("keys", fmt::format("{} keys", (*ring)->keys().size()));
}

// ---- services ----

struct Part {
  const char* name;
  const char* variable;  // as the services have it; "host:port" of gRPC
  int port;
};
constexpr Part kParts[] = {{"agent-registry", "PARLEY_REGISTRY_ADDRESS", 7101},
                           {"dispatch-broker", "PARLEY_DISPATCH_ADDRESS", 7100},
                           {"room-server", "PARLEY_ROOMS_ADDRESS", 7105},
                           {"stt-gateway", "PARLEY_STT_ADDRESS", 7102},
                           {"tts-gateway", "PARLEY_TTS_ADDRESS", 7103},
                           {"llm-gateway", "PARLEY_LLM_ADDRESS", 7104}};

// A service's gRPC port, `above` it: as its variable names it, or the default.
std::string AddressOf(const Part& part, const Options& options, int above) {
  const std::string given = Environment(part.variable);
  const size_t colon = given.rfind(':');
  if (colon == std::string::npos)
    return ReachableAddress(options.host, part.port + above + options.port_offset);
  return fmt::format("{}:{}", given.substr(0, colon), std::atoi(given.c_str() + colon + 1) + above);
}

// Of services that live: do they let us in, as their neighbours have to get in?
void CheckGrpc(const Part& part, const Options& options, bool tls, Findings& findings) {
  const std::string address = AddressOf(part, options, 0);
  const std::string what = fmt::format("{} over gRPC", part.name);
  const absl::Status status = rpc::CheckHealth(address, kTimeout);
  if (status.ok())
    findings.Ok(what, address + (tls ? " serves, over TLS" : " serves, in the clear"));
  else
    findings.Fail(what, fmt::format("{}: {}", address, Message(status)),
                  tls ? "do its certificate and --tls-authorities, --tls-server-name and, with "
                        "mutual TLS, --tls-certificate belong together?"
                      : "where services speak TLS, name --tls-authorities and, with mutual TLS, "
                        "--tls-certificate and --tls-key");
}

// The version on a page of metrics; "" where it says none.
std::string VersionIn(std::string_view metrics) {
  constexpr std::string_view kBefore = "\nparley_build_info{version=\"";
  const size_t at = metrics.find(kBefore);
  if (at == std::string_view::npos) return {};
  metrics.remove_prefix(at + kBefore.size());
  return std::string(metrics.substr(0, metrics.find('"')));
}

// What services said of themselves, by service.
struct Heard {
  std::map<std::string, std::vector<std::string>> by_version;
  std::string slowest;  // whose clock is furthest from ours
  double skew_s = 0;
};

void Note(const Part& part, const http::Reply& ready, const http::Reply* metrics, Heard& heard) {
  if (metrics != nullptr) {
    const std::string version = VersionIn(metrics->body);
    heard.by_version[version.empty() ? "an unknown version" : version].emplace_back(part.name);
  }
  const auto date = ready.headers.find("date");
  absl::Time then;
  if (date == ready.headers.end() ||
      !absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", date->second, &then, nullptr))
    return;
  const double skew = std::abs(absl::ToDoubleSeconds(absl::Now() - then) - kDateS / 2);
  if (skew < heard.skew_s) return;
  heard.skew_s = skew;
  heard.slowest = part.name;
}

void CheckHeard(const Heard& heard, Findings& findings) {
  if (heard.by_version.empty()) return;
  std::string detail;
  for (const auto& [version, names] : heard.by_version) {
    detail += fmt::format("{}{}: {}", detail.empty() ? "" : "; ", version, fmt::join(names, ", "));
  }
  if (heard.by_version.size() > 1)
    findings.Warn("service versions", detail,
                  "neighbouring versions work together: finish the rollout");
  else if (heard.by_version.begin()->first != PARLEY_VERSION)
    findings.Warn("service versions", fmt::format("{}; this is {}", detail, PARLEY_VERSION),
                  "examine a deployment with its own version");
  else
    findings.Ok("service versions", fmt::format("all are of {}", PARLEY_VERSION));
  if (heard.slowest.empty()) return;
  if (heard.skew_s > kMaxSkewS + kDateS)
    findings.Warn("clocks",
                  fmt::format("{}'s is {:.0f} s from this one", heard.slowest, heard.skew_s),
                  "run NTP there and here; tokens expire by the clocks of services");
  else
    findings.Ok("clocks", "the services' agree with this one");
}

void CheckServices(const Options& options, bool tls, Findings& findings) {
  http::Client client;
  Heard heard;
  for (const Part& part : kParts) {
    http::Call call;
    const std::string address = AddressOf(part, options, kAdminAbove);
    call.url = "http://" + address + "/readyz";
    call.timeout = call.connect_timeout = kTimeout;
    call.reach = http::Reach::kAny;
    const auto reply = client.Fetch(call);
    if (!reply.ok())
      findings.Fail(part.name, fmt::format("{} does not answer", address),
                    fmt::format("start it, open its admin port to here, or set {}", part.variable));
    else if (reply->status != 200)
      findings.Fail(part.name, address + " lives and is not ready",
                    "it waits for Redis or for its models, or it drains: see its log");
    else
      findings.Ok(part.name, address + " is ready");
    if (!reply.ok()) continue;
    call.url = "http://" + address + "/metrics";
    const auto metrics = client.Fetch(call);
    Note(part, *reply, metrics.ok() && metrics->status == 200 ? &*metrics : nullptr, heard);
    CheckGrpc(part, options, tls, findings);
  }
  CheckHeard(heard, findings);
}

// ---- what the API says ----

void CheckWorkers(const Json& workers, Findings& findings) {
  struct PoolState {
    int servers = 0, slots = 0, used = 0;
  };
  std::map<std::string, PoolState> pools;
  std::set<std::string> versions;
  for (const Json& worker : workers) {
    versions.insert(worker.value("version", ""));
    if (worker.value("state", "") != "LIVE") continue;
    PoolState& pool = pools[worker.value("pool", "")];
    ++pool.servers;
    pool.slots += worker.value("slots", 0);
    pool.used += worker.value("slotsUsed", 0);
  }
  if (pools.empty())
    return findings.Fail("capacity", "no agent server is registered and live",
                         "start one; look into its log for why the broker refuses it");
  for (const auto& [name, pool] : pools) {
    const std::string detail =
        fmt::format("{} of {} slots in use on {} servers", pool.used, pool.slots, pool.servers);
    if (pool.used >= pool.slots)
      findings.Fail("capacity of " + name, detail, "start more agent servers");
    else if (pool.used > 0.9 * pool.slots)
      findings.Warn("capacity of " + name, detail, "the next callers will wait: start more");
    else
      findings.Ok("capacity of " + name, detail);
  }
  if (versions.size() > 2)
    findings.Warn(
        "versions", fmt::format("agent servers of {} versions", versions.size()),
        "neighbouring versions work together, older ones are not tested: finish rollouts");
  else
    findings.Ok("versions", fmt::format("agent servers of {} version{}", versions.size(),
                                        versions.size() == 1 ? "" : "s"));
}

// Where the environment names no key pair, the first one of the keys file is as good. Before any
// thread is there.
void TakeKeyPair(const Command& command, const std::string& keys) {
  if (keys.empty() || Credentials(command.MakeApi().server()).ok()) return;
  const auto ring = auth::KeyRing::Load(keys);
  if (!ring.ok() || (*ring)->keys().empty()) return;
  setenv("PARLEY_API_KEY", (*ring)->keys().front().key.c_str(), 1);
  setenv("PARLEY_API_SECRET", (*ring)->keys().front().secret.c_str(), 1);
}

void CheckApi(const Command& command, Findings& findings) {
  Api api = command.MakeApi();
  if (const auto ready = api.Send("GET", "/readyz", "", "", nullptr, kTimeout); !ready.ok()) {
    findings.Fail("api-server", std::string(Message(ready.status())),
                  "start it, or name it with --server");
    return;
  }
  findings.Ok("api-server", api.server() + " is ready");
  const auto workers = api.List("/api/workers", "workers");
  if (!workers.ok()) {
    const bool refused = workers.status().code() == absl::StatusCode::kUnauthenticated ||
                         workers.status().code() == absl::StatusCode::kPermissionDenied;
    findings.Fail(refused ? "credentials" : "broker behind api-server",
                  std::string(Message(workers.status())),
                  refused ? "set PARLEY_API_KEY and PARLEY_API_SECRET to a pair of keys.yaml"
                          : "see the dispatch-broker above");
    return;
  }
  findings.Ok("credentials", "the key pair is taken");
  CheckWorkers(*workers, findings);
}

// As flags say, else as the services' variables do.
redis::Config RedisOf(const Options& options) {
  redis::Config config;
  config.address = options.redis;
  config.sentinels = options.sentinels;
  if (config.address.empty() && config.sentinels.empty()) {
    config.address = Environment("PARLEY_REDIS_ADDRESS");
    config.sentinels = Split(Environment("PARLEY_REDIS_SENTINELS"), ',');
    std::erase(config.sentinels, "");
  }
  if (const std::string name = Environment("PARLEY_REDIS_MASTER_NAME"); !name.empty())
    config.master_name = name;
  return config;
}

absl::Status Examine(const Command& command, const Options& options) {
  PARLEY_RETURN_IF_ERROR(command.UseTls());
  std::string keys = options.keys_file;
  if (keys.empty()) keys = Environment("PARLEY_KEYS_FILE");
  TakeKeyPair(command, keys);
  Findings findings;
  const redis::Config redis = RedisOf(options);
  if (redis.address.empty() && redis.sentinels.empty())
    findings.Warn("redis", "not looked at",
                  "name it with --redis or --redis-sentinels, or set PARLEY_REDIS_ADDRESS");
  else
    CheckRedis(redis, findings);
  if (!keys.empty()) CheckKeys(keys, findings);
  CheckServices(options, !command.tls.authorities.empty(), findings);
  CheckApi(command, findings);
  return findings.Print(command.output);
}

}  // namespace

void AddDoctor(CLI::App& root, Command& command) {
  auto options = std::make_shared<Options>();
  CLI::App* doctor = AddCommand(root, command, "doctor", "Check a deployment and say what to fix",
                                [&command, options] { return Examine(command, *options); });
  doctor->add_option("--redis", options->redis,
                     "Redis: host:port or unix:/path; default PARLEY_REDIS_ADDRESS");
  doctor
      ->add_option("--redis-sentinels", options->sentinels,
                   "Sentinels as host:port,…; default PARLEY_REDIS_SENTINELS, the master's name is "
                   "PARLEY_REDIS_MASTER_NAME")
      ->delimiter(',');
  doctor->add_option("--keys-file", options->keys_file, "keys.yaml; default PARLEY_KEYS_FILE");
  doctor
      ->add_option("--host", options->host,
                   "Host of the services, where PARLEY_DISPATCH_ADDRESS and so on name none")
      ->capture_default_str();
  doctor->add_option("--port-offset", options->port_offset, "As of parley dev")
      ->check(CLI::Range(0, 50'000));
}

}  // namespace parley::cli
