#include "room_server/admission_log.h"

#include <unistd.h>

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
  auto file = log::AppendFile::Open(path);
  if (!file.ok()) return Annotate(file.status(), "room.admission_log");
  return std::unique_ptr<AdmissionLog>(new AdmissionLog(*std::move(file), clock));
}

AdmissionLog::AdmissionLog(std::unique_ptr<log::AppendFile> file, Clock& clock)
    : file_(std::move(file)), clock_(clock) {
  file_->Write(nlohmann::json{
      {"time_us", absl::ToUnixMicros(clock_.Now())},
      {"monotonic_us", clock_.MonotonicMicros()},
      {"what", "begin"},
      {"pid",
       getpid()}}.dump());
}

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
  file_->Write(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace parley::room_server
