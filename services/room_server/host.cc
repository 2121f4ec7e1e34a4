#include "room_server/host.h"

#include <absl/time/clock.h>
#include <parley/room/v1/directory.pb.h>
#include <parley/room/v1/room.pb.h>

#include <algorithm>
#include <functional>

#include "base/ids.h"
#include "base/status.h"
#include "room_server/convert.h"
#include "rpc/channel.h"

namespace parley::room_server {
namespace {

constexpr absl::Duration kHousekeeping = absl::Milliseconds(100);
constexpr int kBeatsPerLease = 6;
constexpr size_t kControlThreads = 4;
constexpr size_t kAdmissionThreads = 2;
constexpr size_t kControlQueue = 4096;
constexpr size_t kMaxToFree = 100'000;

room::AdmissionObserver Observer(AdmissionLog* log) {
  if (log == nullptr) return {};
  return [log](const room::AdmissionRecord& record) { log->Write(record); };
}

// Of a room that is about to be made.
room::RoomInfo InfoOf(const room::RoomOptions& options) {
  return {.sid = options.sid,
          .name = options.name,
          .project = options.project,
          .metadata = options.metadata,
          .empty_timeout = options.empty_timeout,
          .departure_timeout = options.departure_timeout,
          .max_participants = options.max_participants,
          .create_time = absl::Now()};
}

}  // namespace

absl::StatusOr<std::shared_ptr<Host>> Host::Create(const RoomServerConfig& config,
                                                   service::Context& context) {
  std::unique_ptr<AdmissionLog> log;
  if (!config.admission_log.empty()) {
    PARLEY_ASSIGN_OR_RETURN(log, AdmissionLog::Open(config.admission_log, context.clock()));
  }
  PARLEY_ASSIGN_OR_RETURN(RoomPresets presets, RoomPresets::Load(config.presets_file));
  PARLEY_ASSIGN_OR_RETURN(
      TurnServers turn,
      TurnServers::Create(config.turn_urls, config.turn_secret_file, config.turn_ttl));
  return std::shared_ptr<Host>(
      new Host(config, context, std::move(log), std::move(presets), std::move(turn)));
}

Host::Host(const RoomServerConfig& config, service::Context& context,
           std::unique_ptr<AdmissionLog> admission_log, RoomPresets presets, TurnServers turn)
    : config_(config),
      context_(context),
      metrics_(context.registry()),
      admission_log_(std::move(admission_log)),
      presets_(std::move(presets)),
      turn_(std::move(turn)),
      redis_(config.redis, context.log()),
      rooms_(context.clock(), Observer(admission_log_.get()),
             static_cast<size_t>(config.max_rooms)),
      control_(kControlThreads, kControlQueue),
      admissions_(kAdmissionThreads, kControlQueue),
      ticker_(config.batch_tick),
      dispatcher_(
          rpc::MakeChannel(config.dispatch_address),
          [&context](const std::string& project) { return context.ServiceToken(project); },
          metrics_, context.log(), context.clock()),
      presence_(
          rpc::MakeChannel(config.dispatch_address),
          [&context](const std::string& project) { return context.ServiceToken(project); }, rooms_,
          metrics_, context.log()) {}

Host::~Host() { Stop(); }

void Host::Start(std::string media_url) {
  MutexLock lock(&mutex_);
  media_url_ = std::move(media_url);
  directory_ = std::make_shared<room_redis::Directory>(
      redis_, room_redis::Replica{"RS_" + RandomBase62(12), media_url_}, config_.lease);
  housekeeper_ = std::thread([this] { Housekeep(); });
}

std::string Host::media_url() const {
  MutexLock lock(&mutex_);
  return media_url_;
}

absl::StatusOr<std::shared_ptr<room_redis::Directory>> Host::directory() const {
  MutexLock lock(&mutex_);
  if (directory_ == nullptr) return Unavailable("the room server is starting");
  return directory_;
}

absl::Status Host::Elsewhere(std::string_view name, const std::string& media_url) const {
  return WithReason(
      FailedPrecondition("the room \"{}\" is on another room server, {}", name, media_url),
      "ROOM_ELSEWHERE", {{"media_url", media_url}});
}

Mutex& Host::StripeOf(const std::string& project, const std::string& name) {
  return stripes_[std::hash<std::string>()(project + "\n" + name) % kStripes];
}

absl::StatusOr<room::Rooms::Opened> Host::Open(const room::RoomOptions& options) {
  if (auto room = rooms_.Find(options.project, options.name)) {
    return room::Rooms::Opened{std::move(room), false};
  }
  // Only names that a room may have reach the store.
  PARLEY_RETURN_IF_ERROR(room::Room::Create(options, context_.clock()).status());
  if (draining_.load()) {
    const absl::Status status = Require(options.project, options.name).status();
    if (ReasonOf(status).reason == "ROOM_ELSEWHERE") return status;
    return WithReason(Unavailable("this room server is draining; join another"), "DRAINING");
  }
  PARLEY_ASSIGN_OR_RETURN(const auto directory, this->directory());
  MutexLock stripe(&StripeOf(options.project, options.name));
  room::RoomOptions ours = options;
  ours.sid = NewId(kRoomPrefix);
  absl::StatusOr<room_redis::Claim> claim =
      directory->TakeRoom(options.project, options.name, Summary(InfoOf(ours)));
  if (!claim.ok()) {
    metrics_.directory_errors.Increment();
    return WithReason(Annotate(claim.status(), "asking which server holds the room"),
                      "STORE_UNAVAILABLE");
  }
  if (!claim->mine) return Elsewhere(options.name, claim->media_url);
  {
    MutexLock lock(&mutex_);
    projects_.insert(options.project);
    to_free_.erase({options.project, options.name});
  }
  auto opened = OpenTaken(ours, claim->heritage);
  if (!opened.ok()) (void)directory->FreeRooms(options.project, {options.name});
  return opened;
}

absl::StatusOr<room::Rooms::Opened> Host::OpenTaken(const room::RoomOptions& options,
                                                    const std::string& heritage) {
  pb::Room before;
  pb::RoomHeritage agents;
  const bool readable = !heritage.empty() && before.ParseFromString(heritage) &&
                        agents.ParseFromString(heritage) && before.sid().starts_with(kRoomPrefix);
  room::RoomOptions ours = options;
  if (readable) ApplyHeritage(before, ours);
  if (!readable || !room::Room::Create(ours, context_.clock()).ok()) return rooms_.Open(options);
  PARLEY_ASSIGN_OR_RETURN(room::Rooms::Opened opened, rooms_.Open(ours));
  if (!opened.created) return opened;
  metrics_.rooms_taken_over.Increment();
  context_.log().Info("a room goes on here after its server died or stopped",
                      {{"room", ours.name}, {"project", ours.project}, {"sid", ours.sid}});
  dispatcher_.Inherit(ours.sid, {agents.agents().begin(), agents.agents().end()});
  opened.created = agents.agents().empty();
  return opened;
}

std::string Host::Summary(const room::RoomInfo& info) const {
  pb::Room room;
  ToProto(info, media_url(), &room);
  pb::RoomHeritage heritage;
  for (const auto& [name, dispatch_id] : dispatcher_.Confirmed(info.sid)) {
    (*heritage.mutable_agents())[name] = dispatch_id;
  }
  return room.SerializeAsString() + heritage.SerializeAsString();
}

absl::StatusOr<std::shared_ptr<room::Room>> Host::Require(const std::string& project,
                                                          const std::string& name) {
  if (auto room = rooms_.Find(project, name)) return room;
  PARLEY_ASSIGN_OR_RETURN(const auto directory, this->directory());
  PARLEY_ASSIGN_OR_RETURN(const auto url, directory->HolderUrl(project, name));
  if (url && *url != media_url()) return Elsewhere(name, *url);
  return NotFound("there is no room \"{}\"", name);
}

absl::Status Host::Delete(const std::string& project, const std::string& name) {
  if (const auto room =
          rooms_.Close(project, name, room::LeaveReason::kRoomDeleted, "the room was deleted")) {
    Forget(*room);
    return absl::OkStatus();
  }
  const absl::Status status = Require(project, name).status();
  return status.code() == absl::StatusCode::kNotFound ? absl::OkStatus() : status;
}

absl::StatusOr<std::vector<room_redis::ListedRoom>> Host::ListEverywhere(
    const std::string& project) {
  PARLEY_ASSIGN_OR_RETURN(const auto directory, this->directory());
  return directory->List(project);
}

absl::Status Host::Fence(const std::string& project, const std::string& name,
                         const std::string& job_id, uint64_t lowest_token) {
  metrics_.fences.Increment();
  // Set here in any case: should the room come to this server, the fence is there before it.
  rooms_.Fence(project, name, job_id, lowest_token);
  const absl::Status status = Require(project, name).status();
  return ReasonOf(status).reason == "ROOM_ELSEWHERE" ? status : absl::OkStatus();
}

void Host::Forget(const room::Room& room) {
  dispatcher_.RoomClosed(room.sid());
  const auto directory = this->directory();
  if (!directory.ok()) return;
  MutexLock stripe(&StripeOf(room.project(), room.name()));
  if (rooms_.Find(room.project(), room.name()) != nullptr) return;  // opened again: still ours
  if (!(*directory)->FreeRooms(room.project(), {room.name()}).ok()) {
    metrics_.directory_errors.Increment();
    MutexLock lock(&mutex_);
    if (to_free_.size() < kMaxToFree) to_free_.emplace(room.project(), room.name());
  }
}

void Host::Expect(room::Room& room, Wish wish, const std::function<bool(Wish)>& want) {
  wish.room_sid = room.sid();
  wish.trace = CurrentTrace();
  wish.on_nobody = [waiting = room.weak_from_this()] {
    if (const auto room = waiting.lock()) room->ExpectAgents(-1);
  };
  // First: the agent may be quicker than we are.
  room.ExpectAgents(1);
  if (!want(std::move(wish))) room.ExpectAgents(-1);
}

void Host::WantAgents(room::Room& room, const std::vector<Wish>& wishes) {
  for (const Wish& wish : wishes) {
    Expect(room, wish, [this](Wish one) { return dispatcher_.Want(std::move(one)); });
  }
  if (room.closed()) dispatcher_.RoomClosed(room.sid());
}

absl::StatusOr<std::string> Host::WantAgentNow(room::Room& room, Wish wish) {
  absl::StatusOr<std::string> id;
  Expect(room, std::move(wish), [this, &id](Wish one) {
    bool added = false;
    id = dispatcher_.WantNow(std::move(one), &added);
    return added;
  });
  if (room.closed()) dispatcher_.RoomClosed(room.sid());
  return id;
}

void Host::Housekeep() {
  int64_t next_beat_us = context_.clock().MonotonicMicros();
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (!stopped_) wake_.WaitFor(&mutex_, kHousekeeping);
      if (stopped_) return;
    }
    for (const auto& room : rooms_.CloseDue()) Forget(*room);
    const int64_t now_us = context_.clock().MonotonicMicros();
    if (now_us < next_beat_us) continue;
    next_beat_us = now_us + absl::ToInt64Microseconds(config_.lease / kBeatsPerLease);
    Heartbeats();
    UpdateGauges();
  }
}

void Host::Heartbeats() {
  const auto directory = this->directory();
  if (!directory.ok()) return;
  std::set<std::string> projects;
  std::set<std::pair<std::string, std::string>> to_free;
  {
    MutexLock lock(&mutex_);
    projects = projects_;
    to_free = to_free_;
  }
  for (const auto& [project, name] : to_free) {
    MutexLock stripe(&StripeOf(project, name));
    if (rooms_.Find(project, name) == nullptr && !(*directory)->FreeRooms(project, {name}).ok()) {
      break;  // the store is still away
    }
    MutexLock lock(&mutex_);
    to_free_.erase({project, name});
  }
  for (const std::string& project : projects) Heartbeat(**directory, project);
}

void Host::Heartbeat(room_redis::Directory& directory, const std::string& project) {
  std::map<std::string, std::string> summaries;
  for (const auto& room : rooms_.List(project)) summaries[room->name()] = Summary(room->info());
  if (summaries.empty()) {
    MutexLock lock(&mutex_);
    if (rooms_.List(project).empty()) projects_.erase(project);
    return;
  }
  const auto lost = directory.Heartbeat(project, summaries);
  if (!lost.ok()) {
    metrics_.directory_errors.Increment();
    return;
  }
  for (const std::string& name : *lost) {
    context_.log().Error("another room server holds this room; closing ours",
                         {{"room", name}, {"project", project}});
    metrics_.rooms_lost.Increment();
    if (const auto room = rooms_.Find(project, name)) presence_.GoesOnElsewhere(room->sid());
    if (const auto room = rooms_.Close(project, name, room::LeaveReason::kConnectionLost,
                                       "the room moved to another server")) {
      dispatcher_.RoomClosed(room->sid());
    }
  }
}

void Host::UpdateGauges() {
  int people = 0;
  int agents = 0;
  const auto rooms = rooms_.ListAll();
  for (const auto& room : rooms) {
    const room::RoomInfo info = room->info();
    people += info.num_participants;
    agents += info.num_agents;
  }
  metrics_.rooms.Set(static_cast<double>(rooms.size()));
  metrics_.people.Set(people);
  metrics_.agents.Set(agents);
}

void Host::Drain(absl::Duration drain) {
  draining_ = true;
  const int64_t until_us = context_.clock().MonotonicMicros() + absl::ToInt64Microseconds(drain);
  const auto occupied = [this] {
    return std::ranges::any_of(rooms_.ListAll(),
                               [](const auto& room) { return room->info().num_participants > 0; });
  };
  while (occupied() && context_.clock().MonotonicMicros() < until_us) {
    MutexLock lock(&mutex_);
    wake_.WaitFor(&mutex_, absl::Milliseconds(50));
  }
  presence_.Stop();
  for (const auto& room : rooms_.ListAll()) {
    if (const room::RoomInfo info = room->info(); info.num_participants + info.num_agents > 0) {
      MutexLock lock(&mutex_);
      left_behind_[room->project()].push_back(room->name());
    }
    rooms_.Close(room->project(), room->name(), room::LeaveReason::kServerShutdown,
                 "the room server is stopping");
    dispatcher_.RoomClosed(room->sid());
  }
  LeaveDirectory();  // now: who was in them is on its way to another server
}

void Host::LeaveDirectory() {
  std::map<std::string, std::vector<std::string>> left_behind;
  {
    MutexLock lock(&mutex_);
    left_behind = left_behind_;
    for (const std::string& project : projects_) left_behind[project];
  }
  const auto directory = this->directory();
  if (!directory.ok()) return;
  for (const auto& [project, rooms] : left_behind) {
    if (!(*directory)->Leave(project, rooms).ok()) return;  // the lease ends by itself
  }
}

void Host::Stop() {
  {
    MutexLock lock(&mutex_);
    if (std::exchange(stopped_, true)) return;
    wake_.SignalAll();
  }
  if (housekeeper_.joinable()) housekeeper_.join();
  dispatcher_.Stop();
  presence_.Stop();
  control_.Stop();
  admissions_.Stop();
  ticker_.Stop();
  LeaveDirectory();
}

}  // namespace parley::room_server
