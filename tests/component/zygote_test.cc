// The zygote with real processes. Each scenario runs as the server half of a program that was split
// in a fork of this test, and reports what went wrong as text; the zygote passes on its exit code.
#include "supervise/zygote.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "supervise/cgroups.h"
#include "supervise/environment.h"
#include "supervise/refusals.h"

namespace parley::supervise {
namespace {

using ::testing::HasSubstr;

constexpr char kNoticeFlag[] = "--test-death-notice";

int64_t NowUs() { return Clock::Real().MonotonicMicros(); }

// What the jobs of these tests do: one command byte, then as told.
int TestJob(int socket_fd) {
  const char hello = 'h';
  if (write(socket_fd, &hello, 1) != 1) return 1;
  char command = 0;
  if (read(socket_fd, &command, 1) != 1) return 2;  // the server is gone
  switch (command) {
    case 'e':
      return 7;
    case 'c':
      std::abort();
    case 'x':
      throw std::runtime_error("thrown by the test");
    case 'p':
      std::printf("a line of a job\n");
      return 0;
    case 'm': {
      std::vector<std::string> hoard;
      for (;;) hoard.push_back(std::string(8 << 20, 'x'));
    }
    case 'M':  // memory that no limit of the process counts
      for (;;) {
        void* const shared =
            mmap(nullptr, 8 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (shared == MAP_FAILED) return 3;
        std::memset(shared, 1, 8 << 20);
      }
    case 'l':
      for (;;) getppid();
    case 'n': {
      const int fd = socket(AF_INET, SOCK_STREAM, 0);
      return fd < 0 && errno == EACCES ? 20 : 21;
    }
    case 's': {  // what every job may not do, and what it must be able to
      if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0) return 31;
      if (execl("/bin/true", "true", nullptr) == 0 || errno != EPERM) return 32;
      if (mount("none", "/tmp", "tmpfs", 0, nullptr) == 0 || errno != EPERM) return 33;
      std::thread thread([] {});
      thread.join();
      int pair[2];
      if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return 34;
      if (fork() >= 0 || errno != EPERM) return 36;
      if (kill(getppid(), 0) == 0 || errno != EPERM) return 37;
      if (kill(getpid(), 0) != 0) return 38;
      const int file = open("/proc/self/status", O_RDONLY);
      if (file < 0) return errno == EACCES ? 29 : 35;
      return 30;
    }
    case 'k': {  // another job, whose number follows
      pid_t other = 0;
      if (read(socket_fd, &other, sizeof(other)) != sizeof(other)) return 2;
      char byte = 0;
      iovec ours = {&byte, 1};
      iovec theirs = {&byte, 1};  // a fork of the same process: something is there
      if (ptrace(PTRACE_ATTACH, other, nullptr, nullptr) == 0) return 61;
      if (process_vm_readv(other, &ours, 1, &theirs, 1, 0) >= 0) return 62;
      const std::string folder = "/proc/" + std::to_string(other);
      if (open((folder + "/mem").c_str(), O_RDONLY) >= 0) return 63;
      if (open((folder + "/environ").c_str(), O_RDONLY) >= 0) return 64;
      if (kill(other, SIGKILL) == 0) return 65;
      rlimit one = {1, 1};
      if (prlimit(other, RLIMIT_NOFILE, &one, nullptr) == 0) return 66;
      return 60;
    }
    case 'o': {  // the server's memory: the first child of our parent
      std::ifstream children("/proc/" + std::to_string(getppid()) + "/task/" +
                             std::to_string(getppid()) + "/children");
      pid_t server = 0;
      children >> server;
      const int fd = open(("/proc/" + std::to_string(server) + "/environ").c_str(), O_RDONLY);
      char byte = 0;
      if (!children) return 50;  // not even that
      return server > 0 && (fd < 0 || read(fd, &byte, 1) < 0) ? 50 : 51;
    }
    case 'v': {  // secrets of the environment
      std::ifstream file("/proc/self/environ");
      std::stringstream all;
      all << file.rdbuf();
      if (getenv("PARLEY_API_SECRET") != nullptr) return 41;
      if (all.str().find("very-secret") != std::string::npos) return 42;
      return getenv("PARLEY_TEST_PLAIN") != nullptr ? 40 : 43;
    }
    case 'f': {  // descriptors a job is born with
      int open_fds = 0;
      for (int fd = 0; fd < 1024; ++fd) open_fds += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
      return 100 + open_fds;
    }
    default:  // waits for ever
      for (;;) pause();
  }
}

// The server's view of its zygote, with waiting.
class Server {
 public:
  explicit Server(ZygoteClient& zygote) : zygote_(zygote) {}

  template <typename T>
  std::optional<T> Await(const std::function<bool(const T&)>& match, int timeout_ms = 30'000) {
    const int64_t until = NowUs() + timeout_ms * int64_t{1000};
    for (;;) {
      for (auto it = seen_.begin(); it != seen_.end(); ++it) {
        if (T* event = std::get_if<T>(&*it); event != nullptr && match(*event)) {
          std::optional<T> found(std::move(*event));
          seen_.erase(it);
          return found;
        }
      }
      if (std::optional<Event> event = zygote_.Next()) {
        seen_.push_back(*std::move(event));
        continue;
      }
      if (NowUs() > until) return std::nullopt;
      pollfd watched = {zygote_.fd(), POLLIN, 0};
      poll(&watched, 1, 100);
    }
  }
  absl::Status Start(const std::string& cgroups = "off") {
    PARLEY_RETURN_IF_ERROR(zygote_.Start(cgroups));
    auto ready = Await<Ready>([](const Ready&) { return true; });
    return ready.has_value() ? ready->status : DeadlineExceeded("no answer to Start");
  }
  std::optional<JobForked> Fork(const JobLimits& limits = {}) {
    const uint64_t request = ++requests_;
    if (!zygote_.Fork(request, limits).ok()) return std::nullopt;
    auto forked = Await<JobForked>([&](const JobForked& f) { return f.request == request; });
    if (!forked.has_value() || !forked->status.ok()) return std::nullopt;
    return forked;
  }
  std::optional<JobExited> AwaitExit(pid_t pid, int timeout_ms = 30'000) {
    return Await<JobExited>([&](const JobExited& e) { return e.pid == pid; }, timeout_ms);
  }
  // Forks, waits for the hello, gives the command, waits for the end.
  std::optional<JobExited> RunJob(char command, const JobLimits& limits = {}) {
    auto job = Fork(limits);
    if (!job.has_value() || !Hello(*job)) return std::nullopt;
    if (write(job->socket.get(), &command, 1) != 1) return std::nullopt;
    output_ = std::move(job->output);
    return AwaitExit(job->pid);
  }
  static bool Hello(const JobForked& job) {
    pollfd watched = {job.socket.get(), POLLIN, 0};
    char hello = 0;
    return poll(&watched, 1, 10'000) == 1 && read(job.socket.get(), &hello, 1) == 1;
  }
  std::string Output() {
    std::string all;
    char buffer[4096];
    for (ssize_t got; (got = read(output_.get(), buffer, sizeof(buffer))) > 0;) {
      all.append(buffer, static_cast<size_t>(got));
    }
    return all;
  }
  ZygoteClient& zygote() { return zygote_; }

 private:
  ZygoteClient& zygote_;
  uint64_t requests_ = 0;
  std::vector<Event> seen_;
  UniqueFd output_;
};

using Scenario = std::function<std::string(Server&)>;

struct Outcome {
  int status = 0;  // as waitpid
  std::string error;
};

Outcome RunSplit(ZygoteOptions options, const Scenario& scenario) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return {-1, "pipe"};
  if (!options.run_job) options.run_job = TestJob;
  const pid_t pid = fork();
  if (pid == 0) {
    auto client = Split(std::move(options));
    std::string error = "split failed";
    if (client.ok()) {
      Server server(**client);
      error = scenario(server);
    }
    if (write(report[1], error.data(), error.size()) < 0) _exit(99);
    _exit(error.empty() ? 0 : 1);
  }
  close(report[1]);
  Outcome outcome;
  char buffer[4096];
  for (ssize_t got; (got = read(report[0], buffer, sizeof(buffer))) > 0;) {
    outcome.error.append(buffer, static_cast<size_t>(got));
  }
  close(report[0]);
  waitpid(pid, &outcome.status, 0);
  return outcome;
}

#define REQUIRE(condition) \
  if (!(condition)) return std::string(#condition " at line ") + std::to_string(__LINE__)

int CountFds(pid_t pid) {
  int count = 0;
  DIR* dir = opendir(("/proc/" + std::to_string(pid) + "/fd").c_str());
  while (dir != nullptr && readdir(dir) != nullptr) ++count;
  if (dir != nullptr) closedir(dir);
  return count;
}

int CountChildren(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
  int count = 0;
  for (int child; file >> child;) ++count;
  return count;
}

bool Alive(pid_t pid) { return kill(pid, 0) == 0; }

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 500; ++i) {
    if (condition()) return true;
    poll(nullptr, 0, 10);
  }
  return false;
}

TEST(ZygoteTest, HundredsOfShortJobsLeaveNothingBehind) {
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    REQUIRE(server.RunJob('e').has_value());
    const int zygote_fds = CountFds(getppid());
    const int own_fds = CountFds(getpid());
    for (int i = 0; i < 300; ++i) {
      auto exited = server.RunJob('e');
      REQUIRE(exited.has_value());
      REQUIRE(exited->exit_code == 7 && exited->signal == 0);
    }
    REQUIRE(CountFds(getppid()) == zygote_fds);
    REQUIRE(CountFds(getpid()) == own_fds);
    REQUIRE(CountChildren(getppid()) == 1);  // this process
    REQUIRE(server.zygote().Leave().ok());
    return "";
  });
  EXPECT_EQ(outcome.error, "");
  EXPECT_EQ(WEXITSTATUS(outcome.status), 0);
}

TEST(ZygoteTest, ManyJobsAtOnceEachHaveTheirOwnSocket) {
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    std::vector<JobForked> jobs;
    for (int i = 0; i < 100; ++i) {
      auto job = server.Fork();
      REQUIRE(job.has_value());
      jobs.push_back(*std::move(job));
    }
    REQUIRE(CountChildren(getppid()) == 101);
    for (JobForked& job : jobs) {
      REQUIRE(Server::Hello(job));
      REQUIRE(write(job.socket.get(), "e", 1) == 1);
      REQUIRE(server.AwaitExit(job.pid).has_value());
    }
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(ZygoteTest, EndsOfAllKindsAreToldApart) {
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    auto crashed = server.RunJob('c');
    REQUIRE(crashed.has_value() && crashed->signal == SIGABRT);
    auto thrown = server.RunJob('x');
    REQUIRE(thrown.has_value() && thrown->exit_code == kExitException);
    REQUIRE(server.Output().find("thrown by the test") != std::string::npos);
    auto printed = server.RunJob('p');
    REQUIRE(printed.has_value() && printed->exit_code == 0);
    REQUIRE(server.Output() == "a line of a job\n");
#ifndef __SANITIZE_ADDRESS__  // its allocator ends the process in its own way
    JobLimits small;
    small.memory_bytes = 64 << 20;
    auto hoarder = server.RunJob('m', small);
    REQUIRE(hoarder.has_value() && hoarder->exit_code == kExitOutOfMemory);
    REQUIRE(hoarder->max_rss_bytes < (200 << 20));
#endif
    JobLimits short_cpu;
    short_cpu.cpu_seconds = 1;
    auto spinner = server.RunJob('l', short_cpu);
    REQUIRE(spinner.has_value() && spinner->signal == SIGXCPU);
    REQUIRE(spinner->cpu_seconds > 0.9);
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

// A group of cgroup v2 for one test, where this host has them and lets us.
class TestGroup {
 public:
  TestGroup() {
    std::ifstream mounts("/proc/self/mountinfo");
    for (std::string line; std::getline(mounts, line);) {
      if (line.find(" - cgroup2 ") == std::string::npos) continue;
      std::istringstream fields(line);
      std::string skipped;
      std::string mount;
      fields >> skipped >> skipped >> skipped >> skipped >> mount;
      const std::string folder = mount + "/parley-test-" + std::to_string(getpid());
      if (mkdir(folder.c_str(), 0755) == 0) folder_ = folder;
    }
  }
  ~TestGroup() {
    if (folder_.empty()) return;
    EXPECT_TRUE(Eventually([this] {
      rmdir((folder_ + "/parley-main").c_str());
      return rmdir(folder_.c_str()) == 0;
    })) << folder_;
  }
  const std::string& folder() const { return folder_; }
  bool has_memory() const {
    std::ifstream file(folder_ + "/cgroup.controllers");
    for (std::string word; file >> word;) {
      if (word == "memory") return true;
    }
    return false;
  }

 private:
  std::string folder_;
};

// Gone, or dead and not reaped yet.
bool IsOver(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("State:", 0) == 0) return line.find('Z') != std::string::npos;
  }
  return true;
}

std::string GroupOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("0::", 0) == 0) return line.substr(3);
  }
  return "";
}

TEST(CgroupsTest, AGroupForEachJobThatEndsWithIt) {
  TestGroup group;
  if (group.folder().empty()) GTEST_SKIP() << "this host lets us make no groups of cgroup v2";
  CgroupOptions options;
  options.parent = group.folder();
  options.needs_memory = false;
  auto groups = JobCgroups::Take(options);
  ASSERT_TRUE(groups.ok()) << groups.status();
  int gate[2];
  ASSERT_EQ(pipe2(gate, O_CLOEXEC), 0);
  const auto entry = (*groups)->Make(0);
  ASSERT_TRUE(entry.ok()) << entry.status();
  const pid_t job = fork();
  if (job == 0) {  // goes in, leaves somebody behind, and ends
    if (write(entry->get(), "0", 1) != 1) _exit(1);
    const pid_t left = fork();
    if (left == 0) {
      setsid();
      for (;;) pause();
    }
    if (write(gate[1], &left, sizeof left) != sizeof left) _exit(2);
    for (;;) pause();
  }
  (*groups)->Born(job);
  pid_t left = 0;
  ASSERT_EQ(read(gate[0], &left, sizeof left), static_cast<ssize_t>(sizeof left));
  const std::string where = GroupOf(job);
  EXPECT_THAT(where, HasSubstr("/parley-test-"));
  EXPECT_THAT(where, HasSubstr("/parley-job-"));
  EXPECT_EQ(GroupOf(left), where);
  EXPECT_NE(GroupOf(getpid()), where);
  kill(job, SIGKILL);
  waitpid(job, nullptr, 0);
  EXPECT_FALSE((*groups)->Gone(job));
  EXPECT_TRUE(Eventually([left] { return IsOver(left); }));
  // The next one finds the group empty.
  ASSERT_TRUE((*groups)->Make(0).ok());
  (*groups)->Born(0);
  groups->reset();
  close(gate[0]);
  close(gate[1]);
}

// In a group of its own, with somebody else in it.
std::string TakeOwnGroup(const std::string& folder) {
  const pid_t other = fork();
  if (other == 0) {
    for (;;) pause();
  }
  std::string error;
  const auto enter = [&folder](pid_t pid) {
    std::ofstream file(folder + "/cgroup.procs");
    return static_cast<bool>(file << pid << std::flush);
  };
  CgroupOptions options;
  options.needs_memory = false;
  if (!enter(getpid()) || !enter(other)) {
    error = "cannot enter";
  } else if (JobCgroups::Take(options).status().message().find("not delegated") ==
             std::string_view::npos) {
    error = "took a group that nobody gave it";
  } else if (setxattr(folder.c_str(), "trusted.delegate", "1", 1, 0) != 0) {
    error = "cannot mark";
  } else if (JobCgroups::Take(options).status().message().find("other processes") ==
             std::string_view::npos) {
    error = "moved a stranger";
  } else {
    options.residents = {other};
    const auto groups = JobCgroups::Take(options);
    if (!groups.ok()) error = std::string(groups.status().message());
    for (const pid_t pid : {getpid(), other}) {
      if (GroupOf(pid).find("/parley-main") == std::string::npos) error += " not moved";
    }
    if (groups.ok() && !(*groups)->Make(0).ok()) error += " no group for a job";
    if (groups.ok()) (*groups)->Born(0);
  }
  kill(other, SIGKILL);
  waitpid(other, nullptr, 0);
  return error;
}

TEST(CgroupsTest, ItsOwnGroupIsTakenWhenItWasDelegated) {
  TestGroup group;
  if (group.folder().empty() || geteuid() != 0) {
    GTEST_SKIP() << "this host lets us make and mark no groups of cgroup v2";
  }
  int report[2];
  ASSERT_EQ(pipe2(report, O_CLOEXEC), 0);
  const pid_t program = fork();
  if (program == 0) {
    const std::string error = TakeOwnGroup(group.folder());
    _exit(write(report[1], error.data(), error.size()) < 0 ? 1 : 0);
  }
  close(report[1]);
  char error[512] = "";
  while (read(report[0], error, sizeof error - 1) > 0) {
  }
  close(report[0]);
  waitpid(program, nullptr, 0);
  EXPECT_STREQ(error, "");
}

TEST(CgroupsTest, WhatCannotBeHadIsSaid) {
  CgroupOptions options;
  options.parent = "/tmp";
  EXPECT_TRUE(absl::IsFailedPrecondition(JobCgroups::Take(options).status()));
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.zygote().Start("/tmp").ok());
    const auto ready = server.Await<Ready>([](const Ready&) { return true; });
    REQUIRE(ready.has_value() && ready->status.ok() && !ready->cgroups);
    REQUIRE(ready->no_cgroups.find("/tmp") != std::string::npos);
    auto job = server.RunJob('e');  // all the same
    REQUIRE(job.has_value() && job->exit_code == 7);
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(CgroupsTest, TheKernelEndsAJobAtItsLimitAndSaysSo) {
  TestGroup group;
  if (group.folder().empty() || !group.has_memory()) {
    GTEST_SKIP() << "this host has no controller of memory in cgroup v2 for us";
  }
  const Outcome outcome = RunSplit({}, [&group](Server& server) -> std::string {
    REQUIRE(server.zygote().Start(group.folder()).ok());
    const auto ready = server.Await<Ready>([](const Ready&) { return true; });
    REQUIRE(ready.has_value() && ready->status.ok());
    if (!ready->cgroups) return ready->no_cgroups;
    auto bystander = server.Fork();
    REQUIRE(bystander.has_value() && Server::Hello(*bystander));
    JobLimits small;
    small.memory_bytes = 32 << 20;
    auto hoarder = server.RunJob('M', small);
    REQUIRE(hoarder.has_value() && hoarder->signal == SIGKILL && hoarder->out_of_memory);
    REQUIRE(hoarder->max_rss_bytes < (160 << 20));
    auto fine = server.RunJob('e', small);
    REQUIRE(fine.has_value() && fine->exit_code == 7 && !fine->out_of_memory);
    REQUIRE(Alive(bystander->pid));
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(ZygoteTest, KillReachesAHungJob) {
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    auto job = server.Fork();
    REQUIRE(job.has_value() && Server::Hello(*job));
    REQUIRE(write(job->socket.get(), "w", 1) == 1);
    REQUIRE(server.zygote().Signal(job->pid, SIGTERM).ok());  // ignored by jobs
    REQUIRE(!server.AwaitExit(job->pid, 200).has_value());
    REQUIRE(server.zygote().Signal(job->pid, SIGKILL).ok());
    auto exited = server.AwaitExit(job->pid);
    REQUIRE(exited.has_value() && exited->signal == SIGKILL);
    REQUIRE(server.zygote().Signal(getpid(), SIGKILL).ok());  // no job: no effect
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(ZygoteTest, JobsAreFencedIn) {
  setenv("PARLEY_API_SECRET", "very-secret", 1);
  setenv("PARLEY_TEST_PLAIN", "plain", 1);
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    REQUIRE(std::string(getenv("PARLEY_API_SECRET")) == "very-secret");  // the server's own
    REQUIRE(server.RunJob('n')->exit_code == 21);                        // network: host
    JobLimits no_network;
    no_network.network = Network::kNone;
    REQUIRE(server.RunJob('n', no_network)->exit_code == 20);
    REQUIRE(server.RunJob('s')->exit_code == 30);
    REQUIRE(server.RunJob('s', no_network)->exit_code == 29);
    if (geteuid() == 0) {  // others are kept out by the server itself, see serve.cc
      REQUIRE(server.RunJob('o')->exit_code == 50);
      REQUIRE(server.RunJob('o', no_network)->exit_code == 50);
    }
    REQUIRE(server.RunJob('v')->exit_code == 40);
    REQUIRE(server.RunJob('f')->exit_code == 104);  // stdin, stdout, stderr, socket
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(ZygoteTest, JobsCannotReachEachOther) {
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    for (Network network : {Network::kHost, Network::kNone}) {
      JobLimits limits;
      limits.network = network;
      auto victim = server.Fork(limits);
      auto other = server.Fork(limits);
      REQUIRE(victim.has_value() && Server::Hello(*victim));
      REQUIRE(other.has_value() && Server::Hello(*other));
      REQUIRE(write(other->socket.get(), "k", 1) == 1);
      REQUIRE(write(other->socket.get(), &victim->pid, sizeof(pid_t)) == sizeof(pid_t));
      const auto exited = server.AwaitExit(other->pid);
      REQUIRE(exited.has_value());
      if (exited->exit_code != 60) return "got through: " + std::to_string(exited->exit_code);
      REQUIRE(Alive(victim->pid));
    }
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

// Answers what `job` is refused until it has ended; the names of the calls.
std::vector<std::string> AnswerAll(Server& server, JobForked& job, bool allow_exec,
                                   int* exit_code) {
  absl::StatusOr<UniqueFd> listener = ReceiveListener(job.report.get());
  std::vector<std::string> calls;
  for (int i = 0; i < 2000; ++i) {
    if (listener.ok()) {
      while (auto refusal = AnswerRefusal(listener->get(), allow_exec)) {
        calls.push_back(refusal->call + (refusal->error == 0 ? " allowed" : ""));
        if (refusal->error == 0) allow_exec = false;
      }
    } else if (absl::IsUnavailable(listener.status())) {
      listener = ReceiveListener(job.report.get());
    }
    if (auto exited = server.AwaitExit(job.pid, 5)) {
      *exit_code = exited->exit_code;
      break;
    }
  }
  return calls;
}

TEST(ZygoteTest, TheServerHearsWhatAJobWasRefused) {
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    JobLimits limits;
    limits.network = Network::kNone;
    limits.report_refusals = true;
    auto job = server.Fork(limits);
    REQUIRE(job.has_value() && Server::Hello(*job));
    REQUIRE(write(job->socket.get(), "s", 1) == 1);
    int exit_code = -1;
    const std::vector<std::string> calls = AnswerAll(server, *job, false, &exit_code);
    REQUIRE(exit_code == 29);
    const std::vector<std::string> wanted = {"ptrace", "execve", "mount",
                                             "clone",  "kill",   "openat"};
    std::string heard;
    for (const std::string& call : calls) heard += call + " ";
    if (calls != wanted) return "heard " + heard;
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(ZygoteTest, AJobMayExecuteItsProgramOnceAndNoOther) {
  ZygoteOptions options;
  options.executes = true;
  options.run_job = [](int) {
    execl("/bin/sh", "sh", "-c", "exec /bin/true", nullptr);
    return 90;
  };
  const Outcome outcome = RunSplit(std::move(options), [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    JobLimits limits;
    limits.report_refusals = true;
    auto job = server.Fork(limits);
    REQUIRE(job.has_value());
    int exit_code = -1;
    const std::vector<std::string> calls = AnswerAll(server, *job, true, &exit_code);
    REQUIRE(calls.size() >= 2 && calls[0] == "execve allowed" && calls[1] == "execve");
    REQUIRE(exit_code == 126);  // the shell could not
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(ZygoteTest, AHungJobSaysWhereItStands) {
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    JobLimits limits;
    limits.network = Network::kNone;
    auto job = server.Fork(limits);
    REQUIRE(job.has_value() && Server::Hello(*job));
    REQUIRE(write(job->socket.get(), "l", 1) == 1);
    std::string output;
    REQUIRE(Eventually([&] {
      if (!server.zygote().DumpStacks(job->pid).ok()) return false;
      char buffer[4096];
      const ssize_t got = read(job->output.get(), buffer, sizeof(buffer));
      if (got > 0) output.append(buffer, static_cast<size_t>(got));
      return output.find('\n') != std::string::npos;
    }));
    REQUIRE(output.rfind("stack of thread " + std::to_string(job->pid) + ": 0x", 0) == 0);
    REQUIRE(server.zygote().Signal(job->pid, SIGKILL).ok());
    REQUIRE(server.AwaitExit(job->pid).has_value());
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(ZygoteTest, PrewarmRunsOnceAndIsShared) {
  ZygoteOptions options;
  static int warmed = 0;
  options.prewarm = [] {
    ++warmed;
    return absl::OkStatus();
  };
  options.run_job = [](int) { return warmed; };
  const Outcome outcome = RunSplit(std::move(options), [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    auto job = server.Fork();
    REQUIRE(server.AwaitExit(job->pid)->exit_code == 1);
    REQUIRE(warmed == 0);  // the server is not a job
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(ZygoteTest, PrewarmThatLeavesAThreadFailsTheStart) {
  ZygoteOptions options;
  options.prewarm = [] {
    std::thread([] {
      for (;;) pause();
    }).detach();
    return absl::OkStatus();
  };
  const Outcome outcome = RunSplit(std::move(options), [](Server& server) -> std::string {
    return std::string(Message(server.Start()));
  });
  EXPECT_THAT(outcome.error, HasSubstr("prewarm left threads behind"));
}

TEST(ZygoteTest, PrewarmThatThrowsFailsTheStart) {
  ZygoteOptions options;
  options.prewarm = []() -> absl::Status { throw std::runtime_error("no model file"); };
  const Outcome outcome = RunSplit(std::move(options), [](Server& server) -> std::string {
    return std::string(Message(server.Start()));
  });
  EXPECT_EQ(outcome.error, "prewarm failed: no model file");
}

TEST(ZygoteTest, ServersDeathKillsJobsThenSendsTheNotice) {
  const std::string file = "/tmp/parley-zygote-test-" + std::to_string(getpid());
  unlink(file.c_str());
  int pids[2];
  ASSERT_EQ(pipe(pids), 0);
  const Outcome outcome = RunSplit({}, [&](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    auto job = server.Fork();
    REQUIRE(job.has_value() && Server::Hello(*job));
    REQUIRE(write(pids[1], &job->pid, sizeof(job->pid)) == sizeof(job->pid));
    REQUIRE(server.zygote().SetDeathNotice(kNoticeFlag, file).ok());
    raise(SIGKILL);
    return "";
  });
  pid_t job = 0;
  ASSERT_EQ(read(pids[0], &job, sizeof(job)), static_cast<ssize_t>(sizeof(job)));
  EXPECT_EQ(WEXITSTATUS(outcome.status), 128 + SIGKILL);
  EXPECT_FALSE(Alive(job));
  std::ifstream notice(file);
  std::string text;
  std::getline(notice, text);
  EXPECT_EQ(text, "notice");
  unlink(file.c_str());
}

TEST(ZygoteTest, OrderlyEndSendsNoNotice) {
  const std::string file = "/tmp/parley-zygote-test-" + std::to_string(getpid());
  unlink(file.c_str());
  const Outcome outcome = RunSplit({}, [&](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    REQUIRE(server.zygote().SetDeathNotice(kNoticeFlag, file).ok());
    REQUIRE(server.zygote().Leave().ok());
    return "";
  });
  EXPECT_EQ(outcome.error, "");
  EXPECT_FALSE(std::ifstream(file).good());
}

TEST(ZygoteTest, ZygotesDeathKillsJobsAndIsSeen) {
  int pids[2];
  ASSERT_EQ(pipe(pids), 0);
  const Outcome outcome = RunSplit({}, [&](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    auto job = server.Fork();
    REQUIRE(job.has_value() && Server::Hello(*job));
    kill(getppid(), SIGKILL);
    REQUIRE(server.Await<ZygoteGone>([](const ZygoteGone&) { return true; }).has_value());
    REQUIRE(Eventually([&] { return !Alive(job->pid); }));
    return "";
  });
  EXPECT_EQ(outcome.error, "");
  EXPECT_TRUE(WIFSIGNALED(outcome.status));
}

TEST(ZygoteTest, PassesSignalsOnAndExitsAsTheServer) {
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    REQUIRE(server.Start().ok());
    kill(getppid(), SIGTERM);
    int got = 0;
    sigwait(&set, &got);
    REQUIRE(got == SIGTERM);
    _exit(42);
  });
  EXPECT_EQ(outcome.error, "");
  EXPECT_EQ(WEXITSTATUS(outcome.status), 42);
}

TEST(ZygoteTest, SplitRefusesAProcessWithThreads) {
  const pid_t pid = fork();
  if (pid == 0) {
    std::thread waiting([] { pause(); });
    auto client = Split({});
    _exit(!client.ok() && absl::IsFailedPrecondition(client.status()) ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(ZygoteTest, ForkToHelloIsFast) {
  const Outcome outcome = RunSplit({}, [](Server& server) -> std::string {
    REQUIRE(server.Start().ok());
    std::vector<int64_t> micros;
    for (int i = 0; i < 300; ++i) {
      const int64_t start = NowUs();
      auto job = server.Fork();
      REQUIRE(job.has_value() && Server::Hello(*job));
      micros.push_back(NowUs() - start);
      REQUIRE(write(job->socket.get(), "e", 1) == 1);
      REQUIRE(server.AwaitExit(job->pid).has_value());
    }
    std::sort(micros.begin(), micros.end());
    std::printf("fork to hello: p50 %ld us, p99 %ld us, max %ld us\n", long(micros[150]),
                long(micros[297]), long(micros.back()));
    std::fflush(stdout);
    REQUIRE(micros[150] < 10'000);  // a machine under load; alone it is 0.4 ms
    return "";
  });
  EXPECT_EQ(outcome.error, "");
}

TEST(EnvironmentTest, NamesThatLookLikeSecrets) {
  for (const char* name : {"PARLEY_API_SECRET", "LIVEKIT_WORKER_TOKEN", "REDIS_PASSWORD",
                           "OPENAI_API_KEY", "AWS_CREDENTIALS", "PARLEY_CLUSTER_KEY"}) {
    EXPECT_TRUE(LooksSecret(name)) << name;
  }
  for (const char* name : {"PATH", "LANG", "KEYBOARD", "LIVEKIT_URL", "PARLEY_KEYS_FILE"}) {
    EXPECT_FALSE(LooksSecret(name)) << name;
  }
}

}  // namespace
}  // namespace parley::supervise

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], parley::supervise::kNoticeFlag) == 0) {
    std::string file;
    std::getline(std::cin, file);
    std::ofstream(file) << "notice\n";
    return 0;
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
