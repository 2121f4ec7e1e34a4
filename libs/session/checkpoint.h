#pragma once
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "session/types.h"

namespace parley::session {

// What the next attempt of a job needs to go on. Opaque to everybody else.
struct Checkpoint {
  static constexpr size_t kMaxBytes = size_t{256} * 1024;
  std::vector<ChatItem> items;
  std::string agent;  // who has the conversation
  std::string user_data;
  std::string greeted;  // identity of the person talked to
  uint64_t turns = 0;
  Usage usage;
};

// At most kMaxBytes: the oldest items are left out where it must be.
std::string FormatCheckpoint(Checkpoint checkpoint);
//   InvalidArgument  not a checkpoint, or one of a later version
absl::StatusOr<Checkpoint> ParseCheckpoint(std::string_view blob);

}  // namespace parley::session
