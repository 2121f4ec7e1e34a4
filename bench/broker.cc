// scripts/bench broker: dispatches through one broker process and one Redis, with agent servers
// that are only their streams and end every job at once. How many a second, what one costs the
// processors of broker and Redis, and whether that stays the same among many workers and behind a
// long queue.
#include <fmt/format.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <map>

#include "auth/token.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/mutex.h"
#include "base/status.h"
#include "job_redis/redis_job_store.h"
#include "options.h"
#include "procfs.h"
#include "report.h"
#include "rpc/channel.h"
#include "sim_worker.h"
#include "testing/cluster.h"

namespace parley::bench {
namespace {

namespace v1 = dispatch::v1;

constexpr char kAgent[] = "bench";
constexpr int kInFlight = 64;  // creates under way, one dispatch each
constexpr int kBatch = 100;    // dispatches of a batched create
constexpr int kBatchesInFlight = 6;
constexpr absl::Duration kPatience = absl::Minutes(10);

int64_t NowMicros() { return Clock::Real().MonotonicMicros(); }

std::string Token() {
  auth::Claims claims;
  claims.identity = "bench";
  claims.video.room_create = claims.video.room_list = claims.video.agent = true;
  const auto ring = auth::KeyRing::Development();
  return auth::Sign(claims, ring->keys()[0], absl::Hours(12));
}

void Fill(v1::CreateDispatchRequest& request, int i) {
  request.set_agent_name(kAgent);
  request.set_room(fmt::format("bench-{}", i));
  request.mutable_queue_deadline()->set_seconds(24 * 3600);
}

// When each job's end came back, counted.
class Ends {
 public:
  void Add() {
    MutexLock lock(&mutex_);
    times_.push_back(NowMicros());
    if (times_.size() == wanted_) changed_.SignalAll();
  }
  // From now on counts from 0 to `wanted`, and lets so many jobs end.
  void Expect(size_t wanted) {
    MutexLock lock(&mutex_);
    times_.clear();
    wanted_ = wanted;
    may_end_ = static_cast<int64_t>(wanted);
  }
  bool MayEnd() { return may_end_.fetch_sub(1) > 0; }
  absl::Status Wait() {
    const absl::Time until = absl::Now() + kPatience;
    MutexLock lock(&mutex_);
    while (times_.size() < wanted_) {
      if (absl::Now() > until) {
        return DeadlineExceeded("{} of {} jobs ended in {}", times_.size(), wanted_,
                                absl::FormatDuration(kPatience));
      }
      changed_.WaitFor(&mutex_, absl::Milliseconds(500));
    }
    return absl::OkStatus();
  }
  std::vector<int64_t> times() const {
    MutexLock lock(&mutex_);
    return times_;
  }

 private:
  std::atomic<int64_t> may_end_{0};
  mutable Mutex mutex_;
  CondVar changed_;
  size_t wanted_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<int64_t> times_ ABSL_GUARDED_BY(mutex_);
};

// Creates `n` dispatches, `batch` in a call (1: CreateDispatch), so many calls under way at once.
class Creator {
 public:
  Creator(const std::string& address, std::string token) : token_(std::move(token)) {
    for (int i = 0; i < 4; ++i) {
      stubs_.push_back(v1::DispatchService::NewStub(rpc::MakeChannel(address)));
    }
  }

  absl::Status Run(int n, int batch) {
    {
      MutexLock lock(&mutex_);
      left_ = n;
      batch_ = batch;
      latencies_ms_.clear();
      status_ = absl::OkStatus();
    }
    const int parallel = batch == 1 ? kInFlight : kBatchesInFlight;
    for (int i = 0; i < parallel; ++i) Next();
    MutexLock lock(&mutex_);
    while (under_way_ > 0) changed_.Wait(&mutex_);
    return status_;
  }
  std::vector<double> latencies_ms() const {
    MutexLock lock(&mutex_);
    return latencies_ms_;
  }

 private:
  struct Call {
    grpc::ClientContext context;
    v1::CreateDispatchRequest one;
    v1::CreateDispatchResponse one_answer;
    v1::CreateDispatchesRequest many;
    v1::CreateDispatchesResponse many_answers;
    int64_t start_us = NowMicros();
  };

  void Next() {
    int first = 0, count = 0;
    {
      MutexLock lock(&mutex_);
      count = std::min(left_, batch_);
      if (count == 0 || !status_.ok()) return;
      left_ -= count;
      first = named_;
      named_ += count;
      ++under_way_;
    }
    auto call = std::make_shared<Call>();
    rpc::SetBearer(call->context, token_);
    rpc::SetTimeout(call->context, absl::Seconds(60));
    auto& stub = *stubs_[static_cast<size_t>(first) % stubs_.size()];
    if (batch_ == 1) {
      Fill(call->one, first);
      stub.async()->CreateDispatch(
          &call->context, &call->one, &call->one_answer,
          [this, call](const grpc::Status& status) { Done(*call, rpc::FromGrpcStatus(status)); });
      return;
    }
    for (int i = 0; i < count; ++i) Fill(*call->many.add_requests(), first + i);
    stub.async()->CreateDispatches(
        &call->context, &call->many, &call->many_answers, [this, call](const grpc::Status& status) {
          absl::Status result = rpc::FromGrpcStatus(status);
          for (const auto& one : call->many_answers.results()) {
            if (one.code() != 0) result = Internal("a create of a batch failed: {}", one.message());
          }
          Done(*call, result);
        });
  }
  void Done(const Call& call, const absl::Status& status) {
    {
      MutexLock lock(&mutex_);
      if (status_.ok()) status_ = status;
      latencies_ms_.push_back(static_cast<double>(NowMicros() - call.start_us) / 1000);
    }
    Next();
    MutexLock lock(&mutex_);
    if (--under_way_ == 0) changed_.SignalAll();
  }

  const std::string token_;
  std::vector<std::unique_ptr<v1::DispatchService::Stub>> stubs_;
  mutable Mutex mutex_;
  CondVar changed_;
  int left_ ABSL_GUARDED_BY(mutex_) = 0;
  int batch_ = 1;
  int named_ ABSL_GUARDED_BY(mutex_) = 0;
  int under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<double> latencies_ms_ ABSL_GUARDED_BY(mutex_);
};

// One broker and its Redis, fresh.
class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Start() {
    std::unique_ptr<Bench> bench(new Bench);
    testing::ClusterOptions options;
    options.services = {"dispatch-broker"};
    options.agent_servers = 0;
    options.extra_arguments["dispatch-broker"] = {"--broker-pool-max-queued", "0",
                                                  "--redis-command-timeout", "5s"};
    PARLEY_ASSIGN_OR_RETURN(bench->cluster_, testing::Cluster::Start(options));
    bench->creator_ =
        std::make_unique<Creator>(bench->cluster_->Address("dispatch-broker"), bench->token_);
    redis::Config redis;
    redis.address = bench->cluster_->Redis().address();
    redis.command_timeout = absl::Seconds(10);
    bench->log_ = std::make_unique<log::Logger>(log::Logger());
    bench->redis_ = std::make_unique<redis::Pool>(redis, *bench->log_);
    return bench;
  }

  absl::StatusOr<std::unique_ptr<SimWorkers>> Workers(int workers, int slots) {
    return SimWorkers::Start(cluster_->Address("dispatch-broker"), token_, kAgent, workers, slots,
                             {[this] { return ends_.MayEnd(); }, [this] { ends_.Add(); }});
  }

  struct Cost {
    double per_second = 0;
    double broker_us = 0;  // of CPU time, for one dispatch
    double redis_us = 0;
    double bench_us = 0;
  };
  // Creates `n` and waits until as many jobs have ended.
  absl::StatusOr<Cost> Through(SimWorkers& workers, int n, int batch) {
    ends_.Expect(static_cast<size_t>(n));
    const Cpu before = ReadCpu();
    const int64_t start = NowMicros();
    workers.EndMore();
    PARLEY_RETURN_IF_ERROR(creator_->Run(n, batch));
    PARLEY_RETURN_IF_ERROR(ends_.Wait());
    return CostOf(before, n, start);
  }
  absl::StatusOr<Cost> Drain(int n, int workers, int slots) {
    ends_.Expect(static_cast<size_t>(n));
    const Cpu before = ReadCpu();
    const int64_t start = NowMicros();
    PARLEY_ASSIGN_OR_RETURN(const auto all, Workers(workers, slots));
    PARLEY_RETURN_IF_ERROR(ends_.Wait());
    return CostOf(before, n, start);
  }

  static absl::StatusOr<std::vector<job::NewDispatch>> Some(job::JobStore& store, int n) {
    std::vector<job::NewDispatch> some;
    for (int i = 0; i < n; ++i) {
      job::NewDispatch dispatch;
      dispatch.project = "default";
      dispatch.agent_name = dispatch.pool = kAgent;
      dispatch.room = "seed-" + RandomBase62(8);
      dispatch.request_hash = "seed";
      dispatch.session_id = NewId(kSessionPrefix);
      dispatch.queue_deadline = absl::Hours(24);
      PARLEY_ASSIGN_OR_RETURN(dispatch.dispatch_id, store.NewDispatchId(kAgent));
      PARLEY_ASSIGN_OR_RETURN(dispatch.job_id, store.NewJobId(kAgent));
      some.push_back(std::move(dispatch));
    }
    return some;
  }

  absl::StatusOr<Cost> Measure(int n, const std::function<absl::Status()>& run) {
    const Cpu before = ReadCpu();
    const int64_t start = NowMicros();
    PARLEY_RETURN_IF_ERROR(run());
    return CostOf(before, n, start);
  }

  // Puts `n` more jobs into the queue by the store's own create script.
  absl::Status Seed(int n) {
    job::RedisJobStore store(*redis_, "B" + RandomBase62(12),
                             {[](const job::Message&) {}, [](const std::string&) {}});
    while (n > 0) {
      PARLEY_ASSIGN_OR_RETURN(const auto some, Some(store, std::min(n, 500)));
      n -= static_cast<int>(some.size());
      for (const auto& created : store.CreateMany(some)) {
        PARLEY_RETURN_IF_ERROR(created.status());
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> RedisBytes() {
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply info, redis_->Command({"INFO", "memory"}));
    const size_t at = info.text.find("used_memory:");
    if (at == info.text.npos) return Internal("INFO memory without used_memory");
    return std::strtoll(info.text.c_str() + at + 12, nullptr, 10);
  }
  redis::Pool& redis() { return *redis_; }
  Creator& creator() { return *creator_; }
  Ends& ends() { return ends_; }

 private:
  struct Cpu {
    double broker = 0, redis = 0, bench = 0;
  };

  Bench() = default;
  Cpu ReadCpu() {
    return {CpuSeconds({cluster_->Service("dispatch-broker").pid()}),
            CpuSeconds({cluster_->Redis().pid()}), CpuSeconds({getpid()})};
  }
  Cost CostOf(const Cpu& before, int n, int64_t start_us) {
    const Cpu after = ReadCpu();
    const double each = 1e6 / n;
    return {n * 1e6 / static_cast<double>(NowMicros() - start_us),
            (after.broker - before.broker) * each, (after.redis - before.redis) * each,
            (after.bench - before.bench) * each};
  }

  const std::string token_ = Token();
  std::unique_ptr<testing::Cluster> cluster_;
  std::unique_ptr<Creator> creator_;
  std::unique_ptr<log::Logger> log_;
  std::unique_ptr<redis::Pool> redis_;
  Ends ends_;
};

void AddCost(Report& report, const std::string& name, const Bench::Cost& cost, int n,
             std::string_view target = {}) {
  report.Value(name + ".per_second", "1/s", cost.per_second, n, target);
  report.Value(name + ".broker_cpu", "us each", cost.broker_us, n);
  report.Value(name + ".redis_cpu", "us each", cost.redis_us, n);
}

// What the scripts alone cost Redis: create with a match, started, ended; one job in a call, and
// twenty-five. One caller, so that the rate is not the point.
absl::Status Scripts(Report& report, bool quick) {
  PARLEY_ASSIGN_OR_RETURN(const auto bench, Bench::Start());
  std::vector<job::Message> told;
  job::RedisJobStore store(bench->redis(), "B" + RandomBase62(12),
                           {[&told](const job::Message& message) { told.push_back(message); },
                            [](const std::string&) {}});
  for (int i = 0; i < 8; ++i) {
    job::Registration worker;
    worker.worker_id = fmt::format("AW_scripts{}", i);
    worker.instance = RandomHex(16);
    worker.connect_seq = 1;
    worker.pool = kAgent;
    worker.agent_names = {kAgent};
    worker.slots = 500;
    worker.accepts_all = true;
    PARLEY_RETURN_IF_ERROR(store.Register(worker).status());
  }
  for (const int batch : {1, 25}) {
    const int n = quick ? 500 : 10'000;
    const auto run = [&]() -> absl::Status {
      for (int done = 0; done < n; done += batch) {
        told.clear();
        PARLEY_ASSIGN_OR_RETURN(const auto some, bench->Some(store, batch));
        for (const auto& created : store.CreateMany(some)) {
          PARLEY_RETURN_IF_ERROR(created.status());
        }
        std::map<std::string, std::vector<job::Word>> words;
        for (const job::Message& go : told) {
          for (const auto kind : {job::WordKind::kStarted, job::WordKind::kEnded}) {
            job::Word word;
            word.job_id = go.job_id;
            word.fencing_token = go.fencing_token;
            word.kind = kind;
            word.reason = job::Reason::kShutdown;
            words[go.worker_id].push_back(word);
          }
        }
        for (const auto& [worker, all] : words) {
          PARLEY_RETURN_IF_ERROR(store.Apply(kAgent, worker, all).status());
        }
      }
      return absl::OkStatus();
    };
    PARLEY_ASSIGN_OR_RETURN(const Bench::Cost cost, bench->Measure(n, run));
    report.Value(fmt::format("broker.scripts_{}.redis_cpu", batch), "us each", cost.redis_us, n);
    report.Value(fmt::format("broker.scripts_{}.store_cpu", batch), "us each", cost.bench_us, n);
  }
  return absl::OkStatus();
}

absl::Status Rates(Report& report, bool quick) {
  PARLEY_ASSIGN_OR_RETURN(const auto bench, Bench::Start());
  PARLEY_ASSIGN_OR_RETURN(const auto workers, bench->Workers(8, 500));
  PARLEY_RETURN_IF_ERROR(bench->Through(*workers, quick ? 200 : 2000, 1).status());  // warm
  const int n = quick ? 1'000 : 20'000;
  PARLEY_ASSIGN_OR_RETURN(const Bench::Cost single, bench->Through(*workers, n, 1));
  AddCost(report, "broker.single", single, n, ">= 2000");
  report.Samples("broker.create_ms", "ms", bench->creator().latencies_ms());
  PARLEY_ASSIGN_OR_RETURN(const Bench::Cost batched, bench->Through(*workers, n, kBatch));
  AddCost(report, "broker.batched", batched, n, ">= 5000");
  return absl::OkStatus();
}

// The first and the last tenth of a queue that empties.
absl::Status Draining(Report& report, bool quick) {
  PARLEY_ASSIGN_OR_RETURN(const auto bench, Bench::Start());
  const int n = quick ? 1'000 : 10'000;
  PARLEY_RETURN_IF_ERROR(bench->creator().Run(n, kBatch));
  PARLEY_ASSIGN_OR_RETURN(const Bench::Cost cost, bench->Drain(n, 8, 50));
  AddCost(report, "broker.drain", cost, n);
  const std::vector<int64_t> times = bench->ends().times();
  const size_t tenth = times.size() / 10;
  const auto rate = [&](size_t from) {
    const int64_t took_us = std::max<int64_t>(1, times[from + tenth - 1] - times[from]);
    return static_cast<double>(tenth) * 1e6 / static_cast<double>(took_us);
  };
  report.Value("broker.drain.first_tenth", "1/s", rate(0), static_cast<int>(tenth));
  report.Value("broker.drain.last_tenth", "1/s", rate(times.size() - tenth),
               static_cast<int>(tenth), ">= the first");
  return absl::OkStatus();
}

absl::Status AmongWorkers(Report& report, bool quick) {
  const int n = quick ? 300 : 4'000;
  for (const int count : {10, 100, 1'000, 10'000}) {
    if (quick && count > 100) break;
    fmt::print(stderr, "among {} workers\n", count);
    PARLEY_ASSIGN_OR_RETURN(const auto bench, Bench::Start());
    PARLEY_ASSIGN_OR_RETURN(const auto workers, bench->Workers(count, std::max(2, 4'000 / count)));
    PARLEY_RETURN_IF_ERROR(bench->Through(*workers, quick ? 100 : 1'000, kBatch).status());  // warm
    PARLEY_ASSIGN_OR_RETURN(const Bench::Cost cost, bench->Through(*workers, n, kBatch));
    AddCost(report, fmt::format("broker.workers_{}", count), cost, n);
  }
  return absl::OkStatus();
}

absl::Status BehindAQueue(Report& report, bool quick) {
  PARLEY_ASSIGN_OR_RETURN(const auto bench, Bench::Start());
  PARLEY_RETURN_IF_ERROR(bench->Seed(10));
  const int n = quick ? 300 : 4'000;
  int queued = 10;
  for (const int level : {10, 1'000, 100'000, 1'000'000}) {
    if (quick && level > 1'000) break;
    fmt::print(stderr, "behind {} queued jobs\n", level);
    PARLEY_ASSIGN_OR_RETURN(const int64_t before, bench->RedisBytes());
    PARLEY_RETURN_IF_ERROR(bench->Seed(level - queued));
    PARLEY_ASSIGN_OR_RETURN(const int64_t after, bench->RedisBytes());
    if (level - queued >= 1'000) {
      report.Value(fmt::format("broker.redis_bytes_queued_job_{}", level), "B",
                   static_cast<double>(after - before) / (level - queued), level - queued);
    }
    queued = level;
    // As many are created as end: the queue stays as long as it is, and its head moves.
    PARLEY_ASSIGN_OR_RETURN(const auto workers, bench->Workers(8, 4));
    PARLEY_ASSIGN_OR_RETURN(const Bench::Cost cost, bench->Through(*workers, n, kBatch));
    AddCost(report, fmt::format("broker.queued_{}", level), cost, n);
  }
  return absl::OkStatus();
}

absl::Status Run(const Options& options, const std::vector<std::string>& parts) {
  Report report("broker", options);
  const auto wanted = [&parts](std::string_view part) {
    return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
  };
  if (wanted("scripts")) PARLEY_RETURN_IF_ERROR(Scripts(report, options.quick));
  if (wanted("rate")) PARLEY_RETURN_IF_ERROR(Rates(report, options.quick));
  if (wanted("drain")) PARLEY_RETURN_IF_ERROR(Draining(report, options.quick));
  if (wanted("workers")) PARLEY_RETURN_IF_ERROR(AmongWorkers(report, options.quick));
  if (wanted("queue")) PARLEY_RETURN_IF_ERROR(BehindAQueue(report, options.quick));
  return report.Finish() ? absl::OkStatus()
                         : absl::InternalError("the result file could not be written");
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  std::vector<std::string> parts;
  const parley::bench::Options options = parley::bench::ParseOptions(argc, argv, [&](auto& app) {
    app.add_option("--part", parts, "Only these: scripts, rate, drain, workers, queue")
        ->check(CLI::IsMember({"scripts", "rate", "drain", "workers", "queue"}));
  });
  const absl::Status status = parley::bench::Run(options, parts);
  if (!status.ok()) fmt::print(stderr, "bench broker: {}\n", parley::Message(status));
  return status.ok() ? 0 : 1;
}
