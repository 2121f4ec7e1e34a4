#pragma once
// The zygote's own loop. Single-threaded; sleeps in poll() whenever nothing happens.
#include <sys/resource.h>
#include <sys/types.h>

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "supervise/cgroups.h"
#include "supervise/sandbox.h"
#include "supervise/wire.h"
#include "supervise/zygote.h"

namespace parley::supervise {

class ZygoteProcess {
 public:
  // `socket`: to the server, whose process is `server`. `signals`: a signalfd of SIGCHLD, SIGTERM,
  // SIGINT and SIGHUP, all of them blocked.
  ZygoteProcess(ZygoteOptions options, UniqueFd socket, UniqueFd signals, pid_t server);

  // Until the server is gone and everything is reaped and reported; the exit code of the program.
  int Run();

 private:
  struct Outgoing {
    uint32_t kind;
    std::string body;
    std::vector<UniqueFd> fds;
  };

  void OnRequest(const wire::Message& message);
  void OnSignals();
  void Prewarm(const std::string& cgroups);
  std::string TakeCgroups(const std::string& where);
  void Fork(const wire::ForkBody& request);
  void AnswerFork(uint64_t request, pid_t pid, int error, std::string_view what,
                  std::vector<UniqueFd> fds);
  void DumpStacks(pid_t pid) const;
  void Reap();
  void OnExit(pid_t pid, int status, const rusage& usage);
  void Post(uint32_t kind, std::string body, std::vector<UniqueFd> fds = {});
  void Flush();
  void KillJobs();
  void SendNotice() const;

  const ZygoteOptions options_;
  const pid_t self_;
  const pid_t server_;
  UniqueFd socket_;
  UniqueFd signals_;
  std::optional<Sandbox> sandboxes_[2];  // by Network
  std::unique_ptr<JobCgroups> cgroups_;  // null: none
  std::set<pid_t> jobs_;
  std::deque<Outgoing> outbox_;  // bounded by the jobs: one answer and one exit each
  std::optional<int> server_status_;
  bool socket_open_ = true;
  bool left_ = false;
  std::string notice_flag_;
  std::string notice_input_;
};

}  // namespace parley::supervise
