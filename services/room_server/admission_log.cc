#include "room_server/admission_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/status.h"

namespace parley::room_server {
namespace {

std::string_view Name(room::AdmissionRecord::Outcome outcome) {
  switch (outcome) {
    case room::AdmissionRecord::Outcome::kAdmit:
      return "admit";
    case room::AdmissionRecord::Outcome::kRefuse:
      return "refuse";
    case room::AdmissionRecord::Outcome::kRemove:
      return "remove";
  }
  return "unknown";
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdmissionLog>> AdmissionLog::Open(const std::string& path,
                                                                 Clock& clock) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (fd < 0) {
    return InvalidArgument("room.admission_log: cannot append to {}: {}", path,
                           std::strerror(errno));
  }
  return std::unique_ptr<AdmissionLog>(new AdmissionLog(fd, clock));
}

AdmissionLog::~AdmissionLog() { close(fd_); }

void AdmissionLog::Write(const room::AdmissionRecord& record) {
  const nlohmann::json line = {{"time_us", absl::ToUnixMicros(clock_.Now())},
                               {"monotonic_us", clock_.MonotonicMicros()},
                               {"what", Name(record.outcome)},
                               {"project", record.project},
                               {"room", record.room},
                               {"room_sid", record.room_sid},
                               {"identity", record.identity},
                               {"job", record.job.job_id},
                               {"token", record.job.token},
                               {"worker", record.job.worker_id},
                               {"instance", record.job.instance},
                               {"highest", record.highest_token}};
  const std::string text =
      line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  // A full disk must not stop calls; the checker sees the gap.
  [[maybe_unused]] const ssize_t written = write(fd_, text.data(), text.size());
}

}  // namespace parley::room_server
