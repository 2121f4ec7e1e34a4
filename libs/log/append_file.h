#pragma once
// Files of evidence: lines that are appended and never touched again, for checkers and audits.
#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <string_view>

namespace parley::log {

// A file that is only appended to, shared with whoever else appends to it. Each line is one write
// with O_APPEND, so that lines of several processes never mix, and a line that was written is kept
// when the writer is killed (it is in the kernel; a power cut may lose the last seconds).
// Thread-safe; a write blocks for some microseconds. No bound of its own: rotate it from outside
// (by copy and truncate) where it runs for long.
class AppendFile {
 public:
  //   InvalidArgument  the file cannot be opened for appending
  static absl::StatusOr<std::unique_ptr<AppendFile>> Open(const std::string& path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // `line` without its newline. A full disk loses the line: evidence must not stop the work.
  void Write(std::string_view line);

 private:
  explicit AppendFile(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace parley::log
