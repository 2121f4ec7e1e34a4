// scripts/bench jobs: what it takes to start job processes. A fork alone, from the request to the
// zygote until the entrypoint reads its clock; short jobs through one agent server of a cluster,
// each created, run and reported; 50 at once; and whether jobs share what prewarm loaded.
#include <fmt/format.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>
#include <parley/job/v1/job.pb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "agent/job/frame.h"
#include "agent/job/run_job.h"
#include "auth/token.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "mailbox.h"
#include "options.h"
#include "procfs.h"
#include "report.h"
#include "rpc/channel.h"
#include "rpc/status.h"
#include "supervise/zygote.h"
#include "testing/cluster.h"

namespace parley::bench {
namespace {

constexpr int kPrewarmMib = 256;
constexpr int kAtOnce = 50;

int64_t NowMicros() { return Clock::Real().MonotonicMicros(); }

// ---- one fork ----

template <typename T>
std::optional<T> Await(supervise::ZygoteClient& zygote, int timeout_ms = 10'000) {
  const int64_t until = NowMicros() + timeout_ms * int64_t{1000};
  while (NowMicros() < until) {
    while (auto event = zygote.Next()) {
      if (T* found = std::get_if<T>(&*event)) return std::move(*found);
    }
    pollfd watched = {zygote.fd(), POLLIN, 0};
    poll(&watched, 1, 100);
  }
  return std::nullopt;
}

// Gives the job at `fd` an assignment and answers when its entrypoint ran, by its own clock.
absl::StatusOr<int64_t> EnteredAt(int fd) {
  job::v1::ToJob assignment;
  assignment.set_seq(1);
  assignment.mutable_assignment()->mutable_job()->set_job_id("AJ_bench");
  std::string bytes;
  agent::AppendFrame(assignment.SerializeAsString(), bytes);
  if (send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) return Aborted("the job is gone");
  agent::FrameReader reader;
  const int64_t until = NowMicros() + 10'000'000;
  while (NowMicros() < until) {
    PARLEY_ASSIGN_OR_RETURN(const auto frame, reader.Next());
    if (!frame.has_value()) {
      pollfd watched = {fd, POLLIN, 0};
      char buffer[4096];
      if (poll(&watched, 1, 1000) != 1) continue;
      const ssize_t got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
      if (got == 0) return Aborted("the job closed its socket");
      if (got > 0) reader.Append({buffer, static_cast<size_t>(got)});
      continue;
    }
    job::v1::FromJob message;
    PARLEY_CHECK(message.ParseFromArray(frame->data(), static_cast<int>(frame->size())));
    if (message.has_entered()) return message.entered().entered_us();
  }
  return DeadlineExceeded("the entrypoint did not run");
}

// The server half of a program of its own, since a process that has threads cannot split.
int MeasureForks(supervise::ZygoteClient& zygote, int n, int out) {
  if (!zygote.Start().ok() || !Await<supervise::Ready>(zygote)) return 1;
  for (int i = 0; i < n; ++i) {
    const int64_t start = NowMicros();
    if (!zygote.Fork(static_cast<uint64_t>(i), {}).ok()) return 2;
    const auto forked = Await<supervise::JobForked>(zygote);
    if (!forked.has_value() || !forked->status.ok()) return 3;
    const absl::StatusOr<int64_t> entered = EnteredAt(forked->socket.get());
    if (!entered.ok()) return 4;
    const double took_ms = static_cast<double>(*entered - start) / 1000;
    if (write(out, &took_ms, sizeof took_ms) != sizeof took_ms) return 5;
    (void)zygote.Signal(forked->pid, SIGKILL);
    if (!Await<supervise::JobExited>(zygote)) return 6;
  }
  return 0;
}

// Must run before this process has threads.
absl::StatusOr<std::vector<double>> ForkToEntrypoint(int n) {
  int ends[2];
  PARLEY_CHECK(pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t program = fork();
  if (program == 0) {
    supervise::ZygoteOptions options;
    options.run_job = [](int fd) {
      agent::AgentOptions agent;
      agent.entrypoint = [](agent::JobContext& job) {
        while (!job.WaitForShutdown(absl::Hours(1))) {
        }
        return absl::OkStatus();
      };
      return agent::RunJob(fd, agent);
    };
    auto zygote = supervise::Split(std::move(options));
    if (!zygote.ok()) _exit(9);
    const int code = MeasureForks(**zygote, n, ends[1]);
    (void)(*zygote)->Leave();
    _exit(code);
  }
  close(ends[1]);
  std::vector<double> samples;
  for (double value = 0; read(ends[0], &value, sizeof value) == sizeof value;) {
    samples.push_back(value);
  }
  close(ends[0]);
  int status = 0;
  waitpid(program, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || samples.size() != static_cast<size_t>(n)) {
    return Internal("the forks could not be measured: {} of {}, status {}", samples.size(), n,
                    status);
  }
  return samples;
}

// ---- through a cluster ----

class Client {
 public:
  explicit Client(const std::string& address)
      : stub_(dispatch::v1::DispatchService::NewStub(rpc::MakeChannel(address))) {
    auth::Claims claims;
    claims.identity = "bench";
    claims.video.room_create = claims.video.room_admin = claims.video.room_list = true;
    token_ = auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1));
  }
  absl::StatusOr<std::string> Create(const std::string& metadata) {
    grpc::ClientContext context;
    Prepare(context);
    dispatch::v1::CreateDispatchRequest request;
    request.set_agent_name("bench");
    request.set_room("bench-" + RandomHex(6));
    request.set_metadata(metadata);
    dispatch::v1::CreateDispatchResponse response;
    PARLEY_RETURN_IF_ERROR(
        rpc::FromGrpcStatus(stub_->CreateDispatch(&context, request, &response)));
    return response.dispatch().id();
  }
  absl::Status Delete(const std::string& id) {
    grpc::ClientContext context;
    Prepare(context);
    dispatch::v1::DeleteDispatchRequest request;
    request.set_dispatch_id(id);
    dispatch::v1::DeleteDispatchResponse response;
    return rpc::FromGrpcStatus(stub_->DeleteDispatch(&context, request, &response));
  }
  // Counts jobs that the broker has recorded as SUCCEEDED from now on, until `count` or 2 minutes.
  absl::Status CountSucceeded(int count, std::atomic<bool>& listening, int64_t* last_us) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, absl::Minutes(2));
    const auto reader = stub_->WatchEvents(&context, {});
    reader->WaitForInitialMetadata();
    listening = true;
    dispatch::v1::WatchEventsResponse response;
    int seen = 0;
    int failed = 0;
    std::map<std::string, int> reasons;
    while (seen + failed < count && reader->Read(&response)) {
      seen += response.event().type() == "job_succeeded" ? 1 : 0;
      if (response.event().type() != "job_failed") continue;
      ++failed;
      reasons[dispatch::v1::JobReason_Name(response.event().reason())] += 1;
    }
    *last_us = NowMicros();
    context.TryCancel();
    reader->Finish();
    if (seen == count) return absl::OkStatus();
    std::string why;
    for (const auto& [reason, times] : reasons) why += fmt::format(" {} {}", times, reason);
    return Internal("{} of {} jobs succeeded, {} failed:{}", seen, count, failed, why);
  }

 private:
  void Prepare(grpc::ClientContext& context) const {
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, absl::Seconds(10));
  }
  std::unique_ptr<dispatch::v1::DispatchService::Stub> stub_;
  std::string token_;
};

absl::StatusOr<std::unique_ptr<testing::Cluster>> StartCluster(int prewarm_mib) {
  testing::ClusterOptions options;
  options.services = {"agent-registry", "dispatch-broker", "room-server"};
  options.agent_binary = "parley-bench-agent";
  options.agent_arguments = {"--slots", "200"};
  setenv("PARLEY_BENCH_PREWARM_MIB", std::to_string(prewarm_mib).c_str(), 1);
  return testing::Cluster::Start(options);
}

std::string Metadata(const Mailbox& mailbox, const char* mode) {
  return fmt::format(R"({{"report":"{}","mode":"{}"}})", mailbox.path(), mode);
}

// Jobs a second, from the first create to the last recorded end.
absl::StatusOr<double> JobsPerSecond(testing::Cluster& cluster, int n) {
  constexpr int kClients = 8;
  Client client(cluster.Address("dispatch-broker"));
  std::atomic<bool> listening{false};
  int64_t last_us = 0;
  absl::Status counted;
  std::thread counter([&] { counted = client.CountSucceeded(n, listening, &last_us); });
  while (!listening) usleep(1000);
  std::atomic<int> next{0};
  std::atomic<int> failed{0};
  const int64_t start = NowMicros();
  std::vector<std::thread> creators;
  for (int i = 0; i < kClients; ++i) {
    creators.emplace_back([&] {
      while (next.fetch_add(1) < n) failed += client.Create(R"({"mode":"exit"})").ok() ? 0 : 1;
    });
  }
  for (std::thread& creator : creators) creator.join();
  counter.join();
  PARLEY_RETURN_IF_ERROR(counted);
  if (failed > 0) return Internal("{} creates failed", failed.load());
  return n / (static_cast<double>(last_us - start) / 1e6);
}

// All of them created together: how long after the first create each entrypoint ran. They stay.
absl::StatusOr<std::vector<double>> AtOnce(testing::Cluster& cluster, Mailbox& mailbox,
                                           std::vector<std::string>* dispatches) {
  Client client(cluster.Address("dispatch-broker"));
  dispatches->resize(kAtOnce);
  const int64_t start = NowMicros();
  std::vector<std::thread> creators;
  for (int i = 0; i < kAtOnce; ++i) {
    creators.emplace_back(
        [&, i] { (*dispatches)[i] = client.Create(Metadata(mailbox, "wait")).value_or(""); });
  }
  std::vector<double> samples;
  absl::Status status;
  for (int i = 0; i < kAtOnce && status.ok(); ++i) {
    const absl::StatusOr<Mailbox::Entry> entry = mailbox.Next(absl::Seconds(10));
    status = entry.status();
    if (entry.ok()) samples.push_back(static_cast<double>(entry->at_us - start) / 1000);
  }
  for (std::thread& creator : creators) creator.join();
  PARLEY_RETURN_IF_ERROR(status);
  return samples;
}

absl::Status Run(const Options& options) {
  Report report("jobs", options);
  PARLEY_ASSIGN_OR_RETURN(const auto forks, ForkToEntrypoint(options.quick ? 50 : 1000));
  report.Samples("job.fork_to_entrypoint_ms", "ms", forks, "<= 2 p99");
  {
    PARLEY_ASSIGN_OR_RETURN(const auto cluster, StartCluster(0));
    PARLEY_RETURN_IF_ERROR(JobsPerSecond(*cluster, 50).status());  // warms up
    const int n = options.quick ? 200 : 3000;
    PARLEY_ASSIGN_OR_RETURN(const double rate, JobsPerSecond(*cluster, n));
    report.Value("worker.jobs_per_second", "1/s", rate, n, ">= 300");
    Mailbox mailbox(cluster->work_dir() + "/mailbox");
    std::vector<std::string> dispatches;
    PARLEY_ASSIGN_OR_RETURN(const auto burst, AtOnce(*cluster, mailbox, &dispatches));
    report.Samples("jobs.fifty_at_once_ms", "ms", burst);
  }
  PARLEY_ASSIGN_OR_RETURN(const auto cluster, StartCluster(kPrewarmMib));
  Mailbox mailbox(cluster->work_dir() + "/mailbox");
  const pid_t program = cluster->AgentServer(0).pid();
  usleep(2'000'000);  // the waiting processes are all there then, and share what they share
  const Memory before = MemoryOf(Tree(program));
  std::vector<std::string> dispatches;
  PARLEY_ASSIGN_OR_RETURN(const auto burst, AtOnce(*cluster, mailbox, &dispatches));
  const Memory after = MemoryOf(Tree(program));
  report.Value("jobs.prewarmed_pss_mib", "MiB", static_cast<double>(before.pss_kib) / 1024, 1);
  report.Value("jobs.prewarmed_pss_with_50_jobs_mib", "MiB",
               static_cast<double>(after.pss_kib) / 1024, kAtOnce);
  report.Value("jobs.prewarmed_page_tables_with_50_jobs_mib", "MiB",
               static_cast<double>(after.page_tables_kib) / 1024, kAtOnce);
  report.Samples("jobs.prewarmed_fifty_at_once_ms", "ms", burst);
  return report.Finish() ? absl::OkStatus() : Internal("the result file could not be written");
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  const parley::bench::Options options = parley::bench::ParseOptions(argc, argv);
  const absl::Status status = parley::bench::Run(options);
  if (!status.ok()) fmt::print(stderr, "bench jobs: {}\n", parley::Message(status));
  return status.ok() ? 0 : 1;
}
