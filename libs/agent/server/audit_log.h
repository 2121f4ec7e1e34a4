#pragma once
#include <absl/status/statusor.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "agent/server/job_table.h"
#include "base/clock.h"
#include "log/append_file.h"

namespace parley::agent {

// Which attempts this agent server really ran, one JSON object a line, appended to a file: evidence
// for a checker, independent of what brokers believe. Written before the broker is told. Off unless
// worker.audit_log names a file. Loop thread only.
//
//   begin    once per worker id: worker, slots, pid of the agent server
//   session  each registration: worker, connect_seq
//   renew    each heartbeat that the store took: worker, seq
//   start    a process has the job: worker, job, token, attempt, pid
//   enter    its entrypoint runs: worker, job, token, pid
//   end      its process is gone: worker, job, token, pid, reason
//   release  given up without an outcome: worker, job, token, pid (0: never had a process)
// All carry time_us (Unix) and monotonic_us.
class AuditLog {
 public:
  // Empty path: an object that writes nothing. InvalidArgument: the file cannot be appended to.
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(const std::string& path, Clock& clock);

  void Begin(std::string_view worker_id, int slots);
  void Session(uint64_t connect_seq);
  void Renew(uint64_t seq);
  void Start(const JobKey& key, int attempt, pid_t pid);
  void Enter(const JobKey& key, pid_t pid);
  void End(const JobKey& key, pid_t pid, parley::dispatch::v1::JobReason reason);
  void Release(const JobKey& key, pid_t pid);

 private:
  AuditLog(std::unique_ptr<log::AppendFile> file, Clock& clock)
      : file_(std::move(file)), clock_(clock) {}
  // The common fields, `fields` (the inside of a JSON object) behind them.
  void Write(std::string_view what, std::string_view fields);
  void WriteJob(std::string_view what, const JobKey& key, pid_t pid, std::string_view more = {});

  const std::unique_ptr<log::AppendFile> file_;  // null: off
  Clock& clock_;
  std::string worker_id_;
};

}  // namespace parley::agent
