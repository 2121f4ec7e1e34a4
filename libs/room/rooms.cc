#include "room/rooms.h"

#include <algorithm>

namespace parley::room {
namespace {

constexpr int64_t kKeepFencesUs = int64_t{10} * 60 * 1'000'000;
constexpr size_t kMaxKept = 100'000;  // rooms whose fences are remembered

}  // namespace

Rooms::Rooms(Clock& clock, AdmissionObserver observer, size_t max_rooms)
    : clock_(clock), observer_(std::move(observer)), max_rooms_(max_rooms) {}

absl::StatusOr<Rooms::Opened> Rooms::Open(const RoomOptions& options) {
  const Key key(options.project, options.name);
  MutexLock lock(&mutex_);
  const auto found = rooms_.find(key);
  if (found != rooms_.end() && !found->second->closed()) return Opened{found->second, false};
  if (found != rooms_.end()) {
    KeepFencesLocked(*found->second);
    rooms_.erase(found);
  }
  if (rooms_.size() >= max_rooms_) {
    return ResourceExhausted("this server holds {} rooms, its limit", max_rooms_);
  }
  JobFences fences;
  if (const auto kept = kept_fences_.find(key); kept != kept_fences_.end()) {
    fences = kept->second.fences;
  }
  PARLEY_ASSIGN_OR_RETURN(std::shared_ptr<Room> room,
                          Room::Create(options, clock_, observer_, std::move(fences)));
  kept_fences_.erase(key);
  rooms_[key] = room;
  return Opened{std::move(room), true};
}

std::shared_ptr<Room> Rooms::Find(std::string_view project, std::string_view name) const {
  MutexLock lock(&mutex_);
  const auto found = rooms_.find(Key(project, name));
  return found == rooms_.end() || found->second->closed() ? nullptr : found->second;
}

std::vector<std::shared_ptr<Room>> Rooms::List(std::string_view project) const {
  MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<Room>> list;
  for (const auto& [key, room] : rooms_) {
    if (key.first == project && !room->closed()) list.push_back(room);
  }
  return list;
}

std::vector<std::shared_ptr<Room>> Rooms::ListAll() const {
  MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<Room>> list;
  for (const auto& [key, room] : rooms_) list.push_back(room);
  return list;
}

std::shared_ptr<Room> Rooms::Close(std::string_view project, std::string_view name,
                                   LeaveReason reason, std::string_view message) {
  std::shared_ptr<Room> room;
  {
    MutexLock lock(&mutex_);
    const auto found = rooms_.find(Key(project, name));
    if (found == rooms_.end()) return nullptr;
    room = found->second;
  }
  room->Close(reason, message);
  MutexLock lock(&mutex_);
  if (const auto found = rooms_.find(Key(project, name));
      found != rooms_.end() && found->second == room) {
    KeepFencesLocked(*room);
    rooms_.erase(found);
  }
  return room;
}

std::vector<std::shared_ptr<Room>> Rooms::CloseDue() {
  std::vector<std::shared_ptr<Room>> closed;
  for (auto& room : ListAll()) {
    if (room->CloseIfDue()) closed.push_back(std::move(room));
  }
  MutexLock lock(&mutex_);
  for (const auto& room : closed) {
    const auto found = rooms_.find(Key(room->project(), room->name()));
    if (found == rooms_.end() || found->second != room) continue;
    KeepFencesLocked(*room);
    rooms_.erase(found);
  }
  PruneLocked();
  return closed;
}

void Rooms::Fence(std::string_view project, std::string_view name, std::string_view job_id,
                  uint64_t lowest_token) {
  MutexLock lock(&mutex_);
  const Key key(project, name);
  if (const auto found = rooms_.find(key); found != rooms_.end()) {
    // With our lock held: a room that closes meanwhile hands its fences over only after this.
    found->second->Fence(job_id, lowest_token);
    return;
  }
  Kept& kept = kept_fences_[key];
  kept.until_us = clock_.MonotonicMicros() + kKeepFencesUs;
  JobFence& fence = kept.fences[std::string(job_id)];
  if (lowest_token > fence.lowest) fence = {lowest_token, {}, {}};
}

void Rooms::KeepFencesLocked(const Room& room) {
  JobFences fences = room.fences();
  if (fences.empty()) return;
  kept_fences_[Key(room.project(), room.name())] = {std::move(fences),
                                                    clock_.MonotonicMicros() + kKeepFencesUs};
}

void Rooms::PruneLocked() {
  const int64_t now = clock_.MonotonicMicros();
  std::erase_if(kept_fences_, [now](const auto& entry) { return entry.second.until_us < now; });
  while (kept_fences_.size() > kMaxKept) kept_fences_.erase(kept_fences_.begin());
}

}  // namespace parley::room
