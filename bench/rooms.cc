// scripts/bench rooms: what a peer connection costs the media server, beside `livekit-server` under
// the same load in the same run. Rooms of two people, each with one peer connection, who talk all
// the time: 50 packets a second in and 50 out for each. The load generator is one thread of this
// program and the same for both servers.
//
//   -- --people 100             in rooms of two
//   -- --seconds 30             measured
//   -- --livekit-server FILE    default: $PARLEY_LIVEKIT_SERVER; without it only Parley is measured
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "auth/token.h"
#include "base/clock.h"
#include "base/status.h"
#include "options.h"
#include "procfs.h"
#include "report.h"
#include "rtc_crowd.h"
#include "testing/cluster.h"

namespace parley::bench {
namespace {

struct Settings {
  int people = 100;
  int seconds = 30;
  int warm_seconds = 3;
  std::string livekit_server;
};

constexpr auto kOurs = "rooms";  // Parley's, in metrics
constexpr int kFirst = 4;        // people whose memory counts as the server's own
constexpr absl::Duration kArrive = absl::Seconds(60);

// What a side is, once it runs.
struct Server {
  std::string name;     // in metrics
  std::string address;  // of /rtc/v1
  auth::ApiKey key;
  std::vector<pid_t> media;  // the process that carries the packets
  std::vector<pid_t> all;    // with what carries the signalling
};

std::string Token(const Server& server, int person) {
  auth::Claims claims;
  claims.identity = fmt::format("person-{}", person);
  claims.video.room_join = true;
  claims.video.room = fmt::format("room-{}", person / 2);
  return auth::Sign(claims, server.key, absl::Hours(1));
}

double Kib(const Memory& memory) {
  return static_cast<double>(memory.pss_kib + memory.page_tables_kib + memory.kernel_stacks_kib);
}

double OwnCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

absl::Status Arrive(RtcCrowd& crowd, const Server& server, int from, int to) {
  for (int person = from; person < to; ++person) {
    PARLEY_RETURN_IF_ERROR(crowd.Add(server.address, Token(server, person)));
    // In twos, so that the time to join is not that of a queue.
    if (person % 2 == 1) PARLEY_RETURN_IF_ERROR(crowd.WaitHearing(kArrive));
  }
  return absl::OkStatus();
}

absl::Status Measure(const Server& server, const Settings& settings, Report& report) {
  RtcCrowd crowd;
  PARLEY_RETURN_IF_ERROR(Annotate(Arrive(crowd, server, 0, kFirst), server.name));
  (void)crowd.Talk(absl::Seconds(settings.warm_seconds));
  const double memory_before = Kib(MemoryOf(server.all));
  PARLEY_RETURN_IF_ERROR(Annotate(Arrive(crowd, server, kFirst, settings.people), server.name));
  (void)crowd.Talk(absl::Seconds(settings.warm_seconds));
  const double media_before = CpuSeconds(server.media);
  const double all_before = CpuSeconds(server.all);
  const double own_before = OwnCpuSeconds();
  const int64_t begin_us = Clock::Real().MonotonicMicros();
  const Heard heard = crowd.Talk(absl::Seconds(settings.seconds));
  const double seconds = static_cast<double>(Clock::Real().MonotonicMicros() - begin_us) / 1e6;
  const double media = (CpuSeconds(server.media) - media_before) / seconds * 100;
  const double all = (CpuSeconds(server.all) - all_before) / seconds * 100;
  const double own = (OwnCpuSeconds() - own_before) / seconds * 100;
  const double memory = Kib(MemoryOf(server.all)) - memory_before;
  if (heard.lost > 0 || heard.latency_ms.empty()) {
    return Internal("{}: {} people were put out, {} packets heard", server.name, heard.lost,
                    heard.received);
  }
  const auto metric = [&](std::string_view what) {
    return fmt::format("{}.{}", server.name, what);
  };
  const auto target = [&](std::string_view ours) { return server.name == kOurs ? ours : ""; };
  std::vector<double> joined, heard_ms;
  for (const Arrival& arrival : crowd.arrivals()) {
    joined.push_back(arrival.connected_ms);
    heard_ms.push_back(arrival.heard_ms);
  }
  const int n = settings.people;
  report.Value(metric("connections_per_core"), "", n / media * 100, n);
  report.Value(metric("cpu_percent_per_peer"), "%", media / n, n, target("<= 0.3"));
  report.Value(metric("cpu_percent_with_signalling"), "%", all / n, n);
  report.Value(metric("memory_kib_per_peer"), "KiB", memory / (n - kFirst), n - kFirst,
               target("<= 200"));
  report.Value(metric("memory_mib"), "MiB", Kib(MemoryOf(server.all)) / 1024, n);
  report.Samples(metric("forward_ms"), "ms", heard.latency_ms);
  // Some that were on their way before count as well.
  const auto lost = static_cast<double>(std::max<int64_t>(heard.sent - heard.received, 0));
  report.Value(metric("packets_lost_percent"), "%", 100 * lost / static_cast<double>(heard.sent),
               static_cast<int>(heard.sent));
  report.Samples(metric("join_ms"), "ms", joined);
  report.Samples(metric("join_to_hearing_ms"), "ms", heard_ms);
  report.Value(metric("load_cpu_percent"), "%", own, n);
  report.Value(metric("load_packets_behind"), "", static_cast<double>(heard.behind),
               static_cast<int>(heard.sent));
  return absl::OkStatus();
}

absl::Status MeasureParley(const Settings& settings, Report& report) {
  testing::ClusterOptions options;
  options.services = {"dispatch-broker", "room-server", "api-server"};
  options.agent_servers = 0;
  PARLEY_ASSIGN_OR_RETURN(const auto cluster, testing::Cluster::Start(options));
  const pid_t rooms = cluster->Service("room-server").pid();
  const Server server = {.name = kOurs,
                         .address = cluster->Address("api-server"),
                         .key = {.key = "devkey", .secret = "secret"},
                         .media = {rooms},
                         .all = {rooms, cluster->Service("api-server").pid()}};
  return Measure(server, settings, report);
}

// A port that was free a moment ago.
int FreePort(int type) {
  const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  (void)bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  (void)getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

bool Answers(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool answers = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  return answers;
}

absl::Status MeasureLivekit(const Settings& settings, Report& report) {
  std::string folder = std::filesystem::temp_directory_path() / "parley-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return Internal("no temporary folder");
  const int port = FreePort(SOCK_STREAM);
  const auth::ApiKey key = {.key = "benchkey", .secret = "a secret of thirty-two characters"};
  // One UDP port and one process, as Parley's; nothing that it would log.
  std::ofstream(folder + "/config.yaml") << fmt::format(
      "port: {}\nbind_addresses: [127.0.0.1]\nlogging: {{level: error}}\n"
      "rtc:\n  udp_port: {}\n  tcp_port: 0\n  use_external_ip: false\n  node_ip: 127.0.0.1\n"
      "  enable_loopback_candidate: true\n  interfaces: {{includes: [lo]}}\n"
      "keys:\n  {}: {}\n",
      port, FreePort(SOCK_DGRAM), key.key, key.secret);
  auto process = testing::Process::Start(
      {settings.livekit_server, "--config", folder + "/config.yaml"}, folder + "/log");
  PARLEY_RETURN_IF_ERROR(process.status());
  for (int i = 0; i < 200 && !Answers(port) && (*process)->running(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  absl::Status status = Unavailable("livekit-server did not start: {}", (*process)->Log());
  if (Answers(port)) {
    const pid_t pid = (*process)->pid();
    status = Measure({.name = "livekit",
                      .address = fmt::format("127.0.0.1:{}", port),
                      .key = key,
                      .media = {pid},
                      .all = {pid}},
                     settings, report);
    if (!status.ok()) fmt::print(stderr, "{}\n", (*process)->Log());
  }
  process->reset();
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return status;
}

absl::Status Run(const Options& options, const Settings& settings) {
  Report report("rooms", options);
  PARLEY_RETURN_IF_ERROR(MeasureParley(settings, report));
  if (settings.livekit_server.empty()) {
    fmt::print("no livekit-server is given: only Parley was measured\n");
  } else {
    PARLEY_RETURN_IF_ERROR(MeasureLivekit(settings, report));
  }
  return report.Finish() ? absl::OkStatus() : Internal("the result file could not be written");
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  parley::bench::Settings settings;
  if (const char* path = std::getenv("PARLEY_LIVEKIT_SERVER")) settings.livekit_server = path;
  const parley::bench::Options options =
      parley::bench::ParseOptions(argc, argv, [&](CLI::App& app) {
        app.add_option("--people", settings.people, "In rooms of two")->check(CLI::Range(6, 5000));
        app.add_option("--seconds", settings.seconds, "Measured")->check(CLI::Range(1, 3600));
        app.add_option("--livekit-server", settings.livekit_server, "The program to compare with");
      });
  if (options.quick) {
    settings.people = 8;
    settings.seconds = 3;
    settings.warm_seconds = 1;
  }
  settings.people += settings.people % 2;
  const absl::Status status = parley::bench::Run(options, settings);
  if (!status.ok()) fmt::print(stderr, "bench rooms: {}\n", parley::Message(status));
  return status.ok() ? 0 : 1;
}
