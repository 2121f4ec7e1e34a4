#pragma once
#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "log/append_file.h"
#include "room/room.h"

namespace parley::room_server {

// Who was admitted, refused and removed, one JSON object a line, appended to a file: what a checker
// reads after a run to see that no two attempts of a job were ever in a room together. Thread-safe;
// each line is one write. The first line of a run says `begin`: whoever an earlier run of this
// replica had admitted is gone.
class AdmissionLog {
 public:
  //   InvalidArgument  the file cannot be opened for appending
  static absl::StatusOr<std::unique_ptr<AdmissionLog>> Open(const std::string& path, Clock& clock);

  void Write(const room::AdmissionRecord& record);

 private:
  AdmissionLog(std::unique_ptr<log::AppendFile> file, Clock& clock);
  const std::unique_ptr<log::AppendFile> file_;
  Clock& clock_;
};

}  // namespace parley::room_server
