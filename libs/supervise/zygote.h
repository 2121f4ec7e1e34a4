#pragma once
// Job processes. The first thing a program does is Split(): the original process stays behind as
// the *zygote*, small and single-threaded, the parent of everything; its first child goes on as the
// program proper (the server), and every job is a fork of the zygote, asked for by the server.
//
//   zygote (pid 1 in a container) ─┬─ server: gRPC, threads, everything else
//                                  ├─ job
//                                  └─ job
//
// Why: a fork of the zygote takes 0.3 ms and shares all of its memory, where an exec takes 8 ms;
// and a process that has started gRPC or threads must never fork.
//
// What happens when one of them dies:
//   a job      the server gets JobExited with status and usage; nobody else notices
//   the server the zygote kills and reaps all jobs, *then* sends the death notice (by running the
//              program again in a hidden mode), and exits as the server did
//   the zygote the kernel kills the jobs; the server reads ZygoteGone
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "supervise/unique_fd.h"

namespace parley::supervise {

// Exit codes of a job that mean something to us. A program's own codes stay below 64.
inline constexpr int kExitOutOfMemory = 86;  // operator new failed under the job's memory limit
inline constexpr int kExitException = 87;    // an exception left the job's function
inline constexpr int kExitSetup = 88;        // limits or filters could not be applied

enum class Network {
  kHost,  // as the program's
  // No sockets and no files: the job's only channel is the one to its server. No capabilities.
  kNone,
};

// Of one job process, set by the kernel before the job's first instruction. 0 = none.
struct JobLimits {
  // Private writable memory on top of what the zygote has (an allocation fails); with a control
  // group also all memory of the job together (the kernel kills it).
  int64_t memory_bytes = 0;
  int64_t cpu_seconds = 0;  // CPU time; over it the process dies by SIGXCPU
  int64_t open_files = 256;
  Network network = Network::kHost;
  // Other processes of this user may not look into it (PR_SET_DUMPABLE); neither may debuggers.
  bool hide_memory = true;
  // Refused system calls come to the server (refusals.h), which must answer each: until then the
  // job's thread waits.
  bool report_refusals = false;
};

struct ZygoteOptions {
  // Runs once in the zygote, before the first job: what it loads, all jobs share. It must leave no
  // thread behind and must not touch gRPC. An error fails the start. May be empty.
  std::function<absl::Status()> prewarm;
  // The whole life of a job process: `socket_fd` (always 3) is its end of the stream socket to the
  // server. The result is the exit code. Never runs in the zygote or the server.
  std::function<int(int socket_fd)> run_job;
  // Variables that jobs may keep although their names look like secrets (…SECRET…, …TOKEN…,
  // …PASSWORD…, …CREDENTIAL…, …_KEY). Everything else that looks like one is wiped from the memory
  // of zygote and jobs.
  std::vector<std::string> keep_environment;
  // run_job executes another program: jobs may do that once.
  bool executes = false;
};

// Events of the zygote.
struct Ready {  // prewarm is over; answer to Start()
  absl::Status status;
  // Jobs get control groups of their own; else: why not.
  bool cgroups = false;
  std::string no_cgroups;
};
struct JobForked {  // answer to Fork()
  uint64_t request = 0;
  pid_t pid = 0;
  UniqueFd socket;      // the server's end; non-blocking
  UniqueFd output;      // what the job writes to stdout and stderr; non-blocking
  UniqueFd report;      // with report_refusals: brings the listener (refusals.h)
  absl::Status status;  // ResourceExhausted: no memory, processes or descriptors left
};
struct JobExited {  // reaped: the pid may be reused from here on
  pid_t pid = 0;
  int exit_code = 0;  // when signal == 0
  int signal = 0;
  bool core_dumped = false;
  bool out_of_memory = false;  // killed by the kernel at the limit of its control group
  double cpu_seconds = 0;
  int64_t max_rss_bytes = 0;
};
struct ZygoteGone {};  // all jobs are dead or dying; nothing can be started any more
using Event = std::variant<Ready, JobForked, JobExited, ZygoteGone>;

// The server's side. One thread at a time; calls send one datagram and do not wait for the answer,
// which comes as an event: watch fd() for reading, then call Next() until it has no more.
class ZygoteClient {
 public:
  explicit ZygoteClient(UniqueFd socket);
  ~ZygoteClient();
  ZygoteClient(const ZygoteClient&) = delete;
  ZygoteClient& operator=(const ZygoteClient&) = delete;

  int fd() const { return socket_.get(); }

  // Runs prewarm; answered with Ready. Once, before the first Fork. `cgroups`: where jobs get
  // control groups of their own (cgroups.h): "off", "auto" (below the program's own, if it was
  // delegated), or a folder of a cgroup2 file system. Where that cannot be had there are none.
  absl::Status Start(std::string_view cgroups = "off");
  // Forks a job; answered with JobForked under the same `request`.
  absl::Status Fork(uint64_t request, const JobLimits& limits);
  // Sends `signal` to the job and everything it started. Safe against reused pids: only the zygote,
  // which has not reaped it yet, knows who it is. No effect on processes that are gone.
  absl::Status Signal(pid_t pid, int signal);
  // Lets each thread of the job write where it stands to standard error: "stack of thread N: 0x…"
  // (addresses as in this process, which has the same code at the same places). Comes soon or, from
  // a thread that takes no signals, never. Programs that were executed are left alone.
  absl::Status DumpStacks(pid_t pid);
  // What the zygote does should this process die without Leave(): runs this program again as
  // `<program> <flag>` with `input` on its standard input, once all jobs are gone. At most 64 KiB.
  // Replaces the notice before; an empty flag takes it back.
  absl::Status SetDeathNotice(std::string_view flag, std::string_view input);
  // An orderly end follows: no notice.
  absl::Status Leave();

  // What has arrived, or nothing. Never blocks.
  std::optional<Event> Next();

 private:
  absl::Status Send(uint32_t kind, std::string_view body);

  UniqueFd socket_;
  bool gone_ = false;
};

// Splits this process. Returns in the child, which goes on as the server in a process group of its
// own; the calling process stays the zygote and never returns: it forwards SIGTERM, SIGINT and
// SIGHUP to the server and exits when the server has ended, with its exit code (128 + signal).
// Call it as the first thing in main().
//   FailedPrecondition  this process has more than one thread already
//   Internal            the kernel refused
absl::StatusOr<std::unique_ptr<ZygoteClient>> Split(ZygoteOptions options);

}  // namespace parley::supervise
