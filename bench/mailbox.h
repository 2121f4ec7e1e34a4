#pragma once
// Where the entrypoints of benchmarks' agents report: a datagram "<job id> <their clock, µs>".
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <string>

namespace parley::bench {

class Mailbox {
 public:
  explicit Mailbox(const std::string& path);  // of the socket; at most 107 bytes
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  struct Entry {
    std::string job_id;
    int64_t at_us = 0;  // CLOCK_MONOTONIC as the entrypoint read it
  };
  absl::StatusOr<Entry> Next(absl::Duration timeout);
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  const int fd_;
};

}  // namespace parley::bench
