#pragma once
#include <absl/status/statusor.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "room/room.h"

namespace parley::room {

// All rooms of one server, by (project, name). Thread-safe; never blocks.
class Rooms {
 public:
  // `max_rooms` bounds what strangers can make us hold.
  explicit Rooms(Clock& clock, AdmissionObserver observer = {}, size_t max_rooms = 100'000);

  struct Opened {
    std::shared_ptr<Room> room;
    bool created = false;
  };
  // The live room of this name, or a new one with these options.
  //   InvalidArgument (names, ranges), ResourceExhausted (too many rooms)
  absl::StatusOr<Opened> Open(const RoomOptions& options);
  // The live room; nullptr when there is none.
  std::shared_ptr<Room> Find(std::string_view project, std::string_view name) const;
  std::vector<std::shared_ptr<Room>> List(std::string_view project) const;
  std::vector<std::shared_ptr<Room>> ListAll() const;
  // Closes and forgets the room; nullptr when there is none.
  std::shared_ptr<Room> Close(std::string_view project, std::string_view name, LeaveReason reason,
                              std::string_view message = {});
  // Closes rooms whose timeout passed; call a few times a second. Answers the rooms closed.
  std::vector<std::shared_ptr<Room>> CloseDue();
  // As Room::Fence; remembered for ten minutes when the room is not here (any more).
  void Fence(std::string_view project, std::string_view room, std::string_view job_id,
             uint64_t lowest_token);

 private:
  using Key = std::pair<std::string, std::string>;
  struct Kept {
    JobFences fences;
    int64_t until_us = 0;
  };
  void KeepFencesLocked(const Room& room) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PruneLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Clock& clock_;
  const AdmissionObserver observer_;
  const size_t max_rooms_;
  mutable Mutex mutex_;  // before a room's lock
  std::map<Key, std::shared_ptr<Room>> rooms_ ABSL_GUARDED_BY(mutex_);
  std::map<Key, Kept> kept_fences_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::room
