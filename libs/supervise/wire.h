#pragma once
// Messages between server and zygote: one SOCK_SEQPACKET datagram each, a fixed head and a body.
// Both ends are one build of one program, so plain structs do.
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "supervise/unique_fd.h"

namespace parley::supervise::wire {

enum Kind : uint32_t {
  // server → zygote
  kStart = 1,   // where control groups go, as ZygoteClient::Start
  kFork = 2,    // ForkBody
  kSignal = 3,  // SignalBody
  kNotice = 4,  // flag, '\0', input
  kLeave = 5,
  kStacks = 6,  // StacksBody
  // zygote → server
  kReady =
      16,  // error text (empty = fine), '\0', why there are no control groups (empty = there are)
  kForked = 17,  // ForkedBody, error text; descriptors socket, output and report
  kExited = 18,  // ExitedBody
};

struct ForkBody {
  uint64_t request;
  int64_t memory_bytes;
  int64_t cpu_seconds;
  int64_t open_files;
  uint8_t network_none;
  uint8_t report_refusals;
  uint8_t hide_memory;
  uint8_t reserved[5];
};
struct SignalBody {
  int32_t pid;
  int32_t signal;
};
struct StacksBody {
  int32_t pid;
};
struct ForkedBody {
  uint64_t request;
  int32_t pid;
  int32_t error;  // errno
};
struct ExitedBody {
  int32_t pid;
  int32_t exit_code;
  int32_t signal;
  int32_t core_dumped;
  int32_t out_of_memory;
  int32_t reserved;
  int64_t cpu_us;
  int64_t max_rss_bytes;
};

inline constexpr size_t kMaxMessage = size_t{72} * 1024;

struct Message {
  uint32_t kind = 0;
  std::string body;
  std::vector<UniqueFd> fds;
};

template <typename T>
std::string_view BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}
// False when `body` is too short.
template <typename T>
bool ReadStruct(std::string_view body, T& value) {
  if (body.size() < sizeof(T)) return false;
  __builtin_memcpy(&value, body.data(), sizeof(T));
  return true;
}

// Unavailable: the buffer is full (only with `dont_wait`); Aborted: the peer is gone.
absl::Status Send(int fd, uint32_t kind, std::string_view body, const std::vector<int>& fds,
                  bool dont_wait);
// Never blocks. Unavailable: nothing there; Aborted: the peer is gone.
absl::StatusOr<Message> Receive(int fd);

}  // namespace parley::supervise::wire
