// A cluster's dispatching as it goes on for hours: 2,000 registered agents, 200 agent servers (that
// exist only as their streams), 10,000 dispatches an hour, half of them over HTTP. With --judge the
// run fails unless memory stays flat and Redis within the bounds of docs/operations.md.
#include <absl/time/clock.h>
#include <fmt/format.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>
#include <parley/registry/v1/registry.grpc.pb.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "auth/token.h"
#include "base/mutex.h"
#include "base/status.h"
#include "http/client.h"
#include "options.h"
#include "procfs.h"
#include "redis/redis.h"
#include "report.h"
#include "rpc/channel.h"
#include "rpc/status.h"
#include "sim_worker.h"
#include "testing/cluster.h"

namespace parley::bench {
namespace {

// How much a process may grow once it is warm.
constexpr double kGrowth = 0.10;
constexpr int64_t kSlackKib = 4096;
// How many more keys there may be that never expire, beside those of jobs that live.
constexpr int kSlackKeys = 20;
constexpr int kTries = 30;

struct LoadOptions {
  int agents = 2000;
  int workers = 200;
  double per_hour = 10'000;
  double seconds = 600;
  double call_s = 30;  // how long a job runs
  bool judge = false;
};

// What Redis keeps, by how long; a dispatch may leave no more than so many bytes in each, as
// docs/operations.md says.
struct Shelf {
  const char* name;
  int64_t most_s;  // -1: for ever
  double most_bytes;
};
constexpr std::array<Shelf, 5> kShelves = {{{"lasting", -1, 128},
                                            {"1h", 3600, 2560},
                                            {"1d", 24 * 3600, 512},
                                            {"7d", int64_t{7} * 24 * 3600, 1536},
                                            {"events", -1, 1536}}};
constexpr size_t kEvents = 4;  // streams, whose newest entries are kept: not by time

std::string Token() {
  auth::Claims claims;
  claims.identity = "bench";
  claims.video.room_create = claims.video.room_list = claims.video.agent = true;
  claims.agent_admin = true;
  const auto ring = auth::KeyRing::Development();
  return auth::Sign(claims, ring->keys()[0], absl::Hours(24));
}

// What is seen of the cluster at one moment.
struct Look {
  double at_s = 0;
  size_t created = 0;
  std::map<std::string, int64_t> pss_kib;  // by process
  int64_t redis_bytes = 0;
  std::array<int64_t, kShelves.size()> keys = {};
  std::array<int64_t, kShelves.size()> bytes = {};
};

class Load {
 public:
  explicit Load(const LoadOptions& options) : options_(options) {}

  absl::Status Start() {
    testing::ClusterOptions cluster;
    cluster.services = {"agent-registry", "dispatch-broker", "api-server"};
    cluster.agent_servers = 0;
    PARLEY_ASSIGN_OR_RETURN(cluster_, testing::Cluster::Start(cluster));
    redis::Config redis;
    redis.address = cluster_->Redis().address();
    redis.command_timeout = absl::Seconds(60);
    redis_ = std::make_unique<redis::Pool>(redis, log::Logger());
    PARLEY_RETURN_IF_ERROR(Register());
    dispatch_ = dispatch::v1::DispatchService::NewStub(
        rpc::MakeChannel(cluster_->Address("dispatch-broker")));
    const SimWorker::Hooks hooks = {[this] { return may_end_.fetch_sub(1) > 0; },
                                    [this] { ended_.fetch_add(1); },
                                    [this](const dispatch::v1::Assignment& job) { Came(job); }};
    PARLEY_ASSIGN_OR_RETURN(workers_, SimWorkers::Start(cluster_->Address("dispatch-broker"),
                                                        token_, "", options_.workers, 50, hooks));
    return absl::OkStatus();
  }

  absl::Status Run() {
    const int total = static_cast<int>(options_.per_hour * options_.seconds / 3600);
    const absl::Time start = absl::Now();
    const double every_s = 3600 / options_.per_hour;
    // After the first third everything was seen once: what grows from then on grows for ever.
    double next_look_s = options_.seconds / 3;
    for (int i = 0; i < total; ++i) {
      absl::SleepFor(start + absl::Seconds(i * every_s) - absl::Now());
      EndDue(start);
      PARLEY_RETURN_IF_ERROR(CreateInTheEnd(i));
      const double at_s = absl::ToDoubleSeconds(absl::Now() - start);
      if (at_s < next_look_s) continue;
      PARLEY_RETURN_IF_ERROR(TakeLook(at_s));
      next_look_s += options_.seconds / 12;
    }
    PARLEY_RETURN_IF_ERROR(TakeLook(absl::ToDoubleSeconds(absl::Now() - start)));
    for (const absl::Time until = absl::Now() + absl::Minutes(1); ended_ < total;) {
      if (absl::Now() > until) return DeadlineExceeded("{} of {} jobs ended", ended_.load(), total);
      may_end_ = total;
      workers_->EndMore();
      absl::SleepFor(absl::Milliseconds(100));
    }
    return absl::OkStatus();
  }

  absl::Status Judge(Report& report) {
    const Look& first = looks_.front();
    const Look& last = looks_.back();
    const int n = static_cast<int>(last.created);
    report.Samples("load.register_ms", "ms", register_ms_);
    report.Samples("load.create_ms", "ms", create_ms_);
    report.Samples("load.create_http_ms", "ms", create_http_ms_);
    {
      MutexLock lock(&mutex_);
      report.Samples("load.created_to_job_ms", "ms", came_ms_);
    }
    report.Value("load.refused", "", refused_, n);
    absl::Status status;
    for (const auto& [name, kib] : last.pss_kib) {
      const int64_t before = first.pss_kib.at(name);
      report.Value("load." + name + ".pss_warm", "KiB", static_cast<double>(before), n);
      report.Value("load." + name + ".pss_end", "KiB", static_cast<double>(kib), n);
      const auto most = static_cast<int64_t>(static_cast<double>(before) * (1 + kGrowth));
      if (name != "redis" && kib > most + kSlackKib)
        status = Internal("{} grew from {} to {} KiB", name, before, kib);
    }
    report.Value("load.redis_used", "KiB", static_cast<double>(last.redis_bytes) / 1024, n);
    const auto between = static_cast<double>(last.created - first.created);
    for (size_t i = 0; i < kShelves.size(); ++i) {
      const Shelf& shelf = kShelves[i];
      const std::string name = fmt::format("load.redis_{}", shelf.name);
      const double each = static_cast<double>(last.bytes[i] - first.bytes[i]) / between;
      report.Value(name + "_keys", "", static_cast<double>(last.keys[i]), n);
      report.Value(name + "_bytes_a_dispatch", "B", each, n);
      if (each > shelf.most_bytes) {
        status = Internal("a dispatch leaves {:.0f} bytes in keys kept {}", each, shelf.name);
      }
    }
    // What belongs to live jobs lasts as long as they do; none of it may stay behind them.
    const int64_t more = last.keys[0] - first.keys[0];
    const double live = std::max(1.0, options_.call_s * options_.per_hour / 3600);
    if (static_cast<double>(more) > kSlackKeys + live)
      status = Internal("{} more keys that never expire than when warm", more);
    return options_.judge ? status : absl::OkStatus();
  }

 private:
  absl::Status Register() {
    const auto stub = registry::v1::AgentRegistryService::NewStub(
        rpc::MakeChannel(cluster_->Address("agent-registry")));
    for (int i = 0; i < options_.agents; ++i) {
      grpc::ClientContext context;
      rpc::SetBearer(context, token_);
      rpc::SetTimeout(context, absl::Seconds(10));
      registry::v1::RegisterAgentRequest request;
      request.set_definition(
          fmt::format(R"({{"id": "load-{}", "instructions": "Agent number {}.", )"
                      R"("stt": [{{"engine": "scripted"}}], "llm": [{{"engine": "scripted"}}], )"
                      R"("tts": [{{"engine": "scripted"}}]}})",
                      i, i));
      registry::v1::RegisterAgentResponse response;
      const absl::Time before = absl::Now();
      PARLEY_RETURN_IF_ERROR(
          rpc::FromGrpcStatus(stub->RegisterAgent(&context, request, &response)));
      register_ms_.push_back(absl::ToDoubleMilliseconds(absl::Now() - before));
    }
    return absl::OkStatus();
  }

  std::string Metadata(int number) const {
    return fmt::format(R"({{"agentId": "load-{}", "caller": "+49 30 901820"}})",
                       number % options_.agents);
  }

  // A store that stands still for a moment, on a busy disk, refuses: callers try again.
  absl::Status CreateInTheEnd(int number) {
    absl::Status status;
    for (int tries = 0; tries < kTries; ++tries) {
      status = number % 2 == 0 ? Create(number) : CreateOverHttp(number);
      if (!absl::IsUnavailable(status)) return status;
      ++refused_;
      absl::SleepFor(absl::Seconds(1));
    }
    return status;
  }

  absl::Status Create(int number) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, absl::Seconds(5));
    dispatch::v1::CreateDispatchRequest request;
    request.set_room(fmt::format("load-{}", number));
    request.set_metadata(Metadata(number));
    request.set_idempotency_key(fmt::format("RM_load{}/agent", number));  // as room servers do
    dispatch::v1::CreateDispatchResponse response;
    const absl::Time before = absl::Now();
    PARLEY_RETURN_IF_ERROR(
        rpc::FromGrpcStatus(dispatch_->CreateDispatch(&context, request, &response)));
    create_ms_.push_back(absl::ToDoubleMilliseconds(absl::Now() - before));
    ++created_;
    return absl::OkStatus();
  }

  absl::Status CreateOverHttp(int number) {
    http::Call call;
    call.method = "POST";
    call.url = "http://" + cluster_->Address("api-server") + "/api/dispatches";
    call.headers = {{"authorization", "Bearer " + token_}, {"content-type", "application/json"}};
    call.body = nlohmann::json{{"room", fmt::format("load-{}", number)},
                               {"metadata", Metadata(number)},
                               {"idempotencyKey", fmt::format("RM_load{}/agent", number)}}
                    .dump();
    call.reach = http::Reach::kLoopbackToo;
    const absl::Time before = absl::Now();
    PARLEY_ASSIGN_OR_RETURN(const http::Reply reply, http_.Fetch(call));
    create_http_ms_.push_back(absl::ToDoubleMilliseconds(absl::Now() - before));
    if (reply.status == 503) return Unavailable("HTTP 503: {}", reply.body);
    if (reply.status / 100 != 2) return Internal("HTTP {}: {}", reply.status, reply.body);
    ++created_;
    return absl::OkStatus();
  }

  // On gRPC's threads. By the broker's clock, which is this machine's, in whole milliseconds.
  void Came(const dispatch::v1::Assignment& job) {
    const absl::Time created = absl::FromUnixSeconds(job.create_time().seconds()) +
                               absl::Nanoseconds(job.create_time().nanos());
    MutexLock lock(&mutex_);
    came_ms_.push_back(std::max(0.0, absl::ToDoubleMilliseconds(absl::Now() - created)));
  }

  // As many jobs end as began `call_s` ago.
  void EndDue(absl::Time start) {
    const double age = absl::ToDoubleSeconds(absl::Now() - start) - options_.call_s;
    const auto due = static_cast<int64_t>(age * options_.per_hour / 3600);
    if (due <= granted_) return;
    may_end_ = due - std::exchange(granted_, due);
    workers_->EndMore();
    may_end_ = 0;
  }

  absl::Status TakeLook(double at_s) {
    Look look;
    look.at_s = at_s;
    look.created = created_;
    for (const std::string name : {"agent-registry", "dispatch-broker", "api-server"}) {
      look.pss_kib[name] = MemoryOf({cluster_->Service(name).pid()}).pss_kib;
    }
    look.pss_kib["redis"] = MemoryOf({cluster_->Redis().pid()}).pss_kib;
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply info, redis_->Command({"INFO", "memory"}));
    const size_t at = info.text.find("used_memory:");
    if (at == info.text.npos) return Internal("INFO memory without used_memory");
    look.redis_bytes = std::strtoll(info.text.c_str() + at + 12, nullptr, 10);
    PARLEY_RETURN_IF_ERROR(CountKeys(look));
    looks_.push_back(look);
    return absl::OkStatus();
  }

  static size_t ShelfOf(std::string_view key, int64_t ttl) {
    if (key.ends_with(":events")) return kEvents;
    const auto shelf = std::ranges::find_if(kShelves, [ttl](const Shelf& one) {
      return one.most_s == -1 ? ttl == -1 : ttl >= 0 && ttl <= one.most_s;
    });
    return static_cast<size_t>(shelf - kShelves.begin());
  }

  absl::Status CountKeys(Look& look) {
    std::string cursor = "0";
    std::set<std::string> seen;  // a scan may name a key twice
    do {
      PARLEY_ASSIGN_OR_RETURN(const redis::Reply page,
                              redis_->Command({"SCAN", cursor, "COUNT", "500"}));
      cursor = page.elements[0].text;
      std::vector<std::vector<std::string>> ask;
      for (const redis::Reply& key : page.elements[1].elements) {
        if (!seen.insert(key.text).second) continue;
        ask.push_back({"TTL", key.text});
        ask.push_back({"MEMORY", "USAGE", key.text});
      }
      PARLEY_ASSIGN_OR_RETURN(const auto answers, redis_->Pipeline(ask));
      for (size_t i = 0; i + 1 < answers.size(); i += 2) {
        if (!answers[i].ok() || !answers[i + 1].ok() || answers[i + 1]->nil()) continue;  // gone
        const int64_t ttl = answers[i]->integer;
        if (ttl == -2) continue;
        const size_t index = ShelfOf(ask[i][1], ttl);
        if (index >= kShelves.size())
          return Internal("{} is kept for {} s, longer than anything should be", ask[i][1], ttl);
        ++look.keys[index];
        look.bytes[index] += answers[i + 1]->integer;
      }
    } while (cursor != "0");
    return absl::OkStatus();
  }

  const LoadOptions options_;
  const std::string token_ = Token();
  std::unique_ptr<testing::Cluster> cluster_;
  std::unique_ptr<redis::Pool> redis_;
  http::Client http_;
  std::unique_ptr<dispatch::v1::DispatchService::Stub> dispatch_;
  std::atomic<int64_t> may_end_{0};
  std::atomic<int> ended_{0};
  int64_t granted_ = 0;
  size_t created_ = 0;
  int refused_ = 0;
  std::vector<double> register_ms_;
  std::vector<double> create_ms_;
  std::vector<double> create_http_ms_;
  Mutex mutex_;
  std::vector<double> came_ms_ ABSL_GUARDED_BY(mutex_);
  std::vector<Look> looks_;
  std::unique_ptr<SimWorkers> workers_;
};

absl::Status Run(const Options& options, LoadOptions load) {
  if (options.quick) load = {300, 40, 36'000, 12, 2, load.judge};
  Report report("load", options);
  Load run(load);
  PARLEY_RETURN_IF_ERROR(run.Start());
  PARLEY_RETURN_IF_ERROR(run.Run());
  const absl::Status verdict = run.Judge(report);
  if (!report.Finish()) return absl::InternalError("the result file could not be written");
  return verdict;
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  parley::bench::LoadOptions load;
  const parley::bench::Options options = parley::bench::ParseOptions(argc, argv, [&](auto& app) {
    app.add_option("--agents", load.agents, "Registered agents")->check(CLI::Range(1, 1'000'000));
    app.add_option("--workers", load.workers, "Simulated agent servers")
        ->check(CLI::Range(1, 100'000));
    app.add_option("--per-hour", load.per_hour, "Dispatches an hour")->check(CLI::Range(1.0, 1e8));
    app.add_option("--seconds", load.seconds, "How long")->check(CLI::Range(1.0, 1e6));
    app.add_option("--call", load.call_s, "Seconds that a job runs")->check(CLI::Range(0.0, 1e5));
    app.add_flag("--judge", load.judge, "Fail when memory or Redis grow beyond their bounds");
  });
  const absl::Status status = parley::bench::Run(options, load);
  if (status.ok()) return 0;
  fmt::print(stderr, "bench-load: {}\n", parley::Message(status));
  return 1;
}
