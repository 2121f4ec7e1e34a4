#pragma once
#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "room/room.h"

namespace parley::room_server {

// Who was admitted, refused and removed, one JSON object a line, appended to a file: what a checker
// reads after a run to see that no two attempts of a job were ever in a room together. Thread-safe;
// each line is one write.
class AdmissionLog {
 public:
  //   InvalidArgument  the file cannot be opened for appending
  static absl::StatusOr<std::unique_ptr<AdmissionLog>> Open(const std::string& path, Clock& clock);
  ~AdmissionLog();
  AdmissionLog(const AdmissionLog&) = delete;
  AdmissionLog& operator=(const AdmissionLog&) = delete;

  void Write(const room::AdmissionRecord& record);

 private:
  AdmissionLog(int fd, Clock& clock) : fd_(fd), clock_(clock) {}
  const int fd_;
  Clock& clock_;
};

}  // namespace parley::room_server
