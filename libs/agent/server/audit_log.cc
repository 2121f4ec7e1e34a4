#include "agent/server/audit_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/status.h"

namespace parley::agent {

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(const std::string& path, Clock& clock) {
  if (path.empty()) return std::unique_ptr<AuditLog>(new AuditLog(nullptr, clock));
  auto file = log::AppendFile::Open(path);
  if (!file.ok()) return Annotate(file.status(), "worker.audit_log");
  return std::unique_ptr<AuditLog>(new AuditLog(*std::move(file), clock));
}

void AuditLog::Begin(std::string_view worker_id, int slots) {
  worker_id_ = worker_id;
  Write("begin", fmt::format(R"("slots":{},"pid":{})", slots, getpid()));
}

void AuditLog::Session(uint64_t connect_seq) {
  Write("session", fmt::format(R"("connect_seq":{})", connect_seq));
}

void AuditLog::Renew(uint64_t seq) { Write("renew", fmt::format(R"("seq":{})", seq)); }

void AuditLog::Start(const JobKey& key, int attempt, pid_t pid) {
  WriteJob("start", key, pid, fmt::format(R"(,"attempt":{})", attempt));
}

void AuditLog::Enter(const JobKey& key, pid_t pid) { WriteJob("enter", key, pid); }

void AuditLog::End(const JobKey& key, pid_t pid, parley::dispatch::v1::JobReason reason) {
  constexpr std::string_view kPrefix = "JOB_REASON_";
  const std::string& name = parley::dispatch::v1::JobReason_Name(reason);
  WriteJob("end", key, pid, fmt::format(R"(,"reason":"{}")", name.substr(kPrefix.size())));
}

void AuditLog::Release(const JobKey& key, pid_t pid) { WriteJob("release", key, pid); }

// Ids are of a closed alphabet, reasons of a closed list: nothing needs quoting.
void AuditLog::WriteJob(std::string_view what, const JobKey& key, pid_t pid,
                        std::string_view more) {
  Write(what, fmt::format(R"("job":"{}","token":{},"pid":{}{})", key.job_id, key.token, pid, more));
}

void AuditLog::Write(std::string_view what, std::string_view fields) {
  if (file_ == nullptr) return;
  file_->Write(fmt::format(R"({{"time_us":{},"monotonic_us":{},"what":"{}","worker":"{}",{}}})",
                           absl::ToUnixMicros(clock_.Now()), clock_.MonotonicMicros(), what,
                           worker_id_, fields));
}

}  // namespace parley::agent
