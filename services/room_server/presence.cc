#include "room_server/presence.h"

#include <algorithm>

#include "base/clock.h"
#include "base/status.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::room_server {
namespace {

constexpr int64_t kLookUs = 100'000;
constexpr int64_t kLookShare = 20;  // at most a twentieth of one core
constexpr int64_t kRetryUs = 1'000'000;
constexpr int64_t kRepeatUs = 30'000'000;
constexpr absl::Duration kCallTimeout = absl::Seconds(2);
constexpr int kRoomsPerReport = 200;
constexpr int kMaxPeople = 1000;  // of a room; the broker takes no more
constexpr std::string_view kNeverReported = "\n";

int64_t NowUs() { return Clock::Real().MonotonicMicros(); }

bool IsPerson(const room::ParticipantInfo& one) {
  return one.kind == room::Kind::kStandard || one.kind == room::Kind::kSip;
}

}  // namespace

PresenceReporter::PresenceReporter(std::shared_ptr<grpc::Channel> channel, TokenSource tokens,
                                   room::Rooms& rooms, RoomServerMetrics& metrics, log::Logger log)
    : tokens_(std::move(tokens)),
      rooms_(rooms),
      metrics_(metrics),
      log_(std::move(log)),
      stub_(dispatch::v1::DispatchService::NewStub(std::move(channel))),
      thread_([this] { Loop(); }) {}

PresenceReporter::~PresenceReporter() { Stop(); }

void PresenceReporter::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    wake_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

void PresenceReporter::GoesOnElsewhere(const std::string& room_sid) {
  MutexLock lock(&mutex_);
  elsewhere_.insert(room_sid);
}

void PresenceReporter::Loop() {
  while (true) {
    const int64_t start_us = NowUs();
    const bool taken = Look();
    const int64_t took_us = NowUs() - start_us;
    const int64_t wait_us = taken ? std::max(kLookUs, took_us * kLookShare) : kRetryUs;
    MutexLock lock(&mutex_);
    if (!stopped_) wake_.WaitFor(&mutex_, absl::Microseconds(wait_us));
    if (stopped_) return;
  }
}

bool PresenceReporter::Look() {
  const int64_t now_us = NowUs();
  // Rises over restarts and from server to server; the broker ignores what is older.
  const auto version = static_cast<uint64_t>(absl::ToUnixMicros(absl::Now()));
  Report report;
  std::map<std::string, std::string> people;  // of the rooms in the report, by sid
  std::set<std::string> there;
  bool all_taken = true;
  const auto flush = [&] {
    if (report.rooms_size() > 0) all_taken = Send(report, people) && all_taken;
    report.clear_rooms();
    people.clear();
  };
  for (const auto& room : rooms_.ListAll()) {
    if (room->closed()) continue;
    there.insert(room->sid());
    dispatch::v1::RoomPresence now;
    for (const room::ParticipantInfo& one : room->participants()) {
      if (!IsPerson(one) || now.people_size() >= kMaxPeople) continue;
      now.add_people()->set_identity(one.identity);
      now.mutable_people(now.people_size() - 1)->set_publishing(!one.tracks.empty());
    }
    const std::string text = now.SerializeAsString();
    Known& known = known_[room->sid()];
    if (known.name.empty()) known = {room->project(), room->name(), std::string(kNeverReported)};
    const bool repeat = known.watched && now_us - known.reported_us > kRepeatUs;
    if (known.people == text && !repeat) continue;
    now.set_project(room->project());
    now.set_room(room->name());
    now.set_room_sid(room->sid());
    now.set_version(version);
    *report.add_rooms() = std::move(now);
    people[room->sid()] = text;
    if (report.rooms_size() >= kRoomsPerReport) flush();
  }
  {
    MutexLock lock(&mutex_);
    std::erase_if(elsewhere_, [&](const std::string& sid) {
      if (there.contains(sid)) return false;  // it closes in a moment
      known_.erase(sid);
      return true;
    });
  }
  for (const auto& [sid, known] : known_) {
    if (there.contains(sid)) continue;
    dispatch::v1::RoomPresence& over = *report.add_rooms();
    over.set_project(known.project);
    over.set_room(known.name);
    over.set_room_sid(sid);
    over.set_version(version);
    over.set_closed(true);
    if (report.rooms_size() >= kRoomsPerReport) break;  // the others next time
  }
  flush();
  return all_taken;
}

bool PresenceReporter::Send(const Report& report,
                            const std::map<std::string, std::string>& people) {
  grpc::ClientContext context;
  rpc::SetBearer(context, tokens_(""));
  rpc::SetTimeout(context, kCallTimeout);
  dispatch::v1::ReportPresenceResponse response;
  const absl::Status status =
      rpc::FromGrpcStatus(stub_->ReportPresence(&context, report, &response));
  if (!status.ok()) {
    metrics_.presence_failures.Increment();
    if (!failing_) {
      log_.Warn("the broker did not take who is where; said again until it does",
                {{"error", Message(status)}});
    }
    failing_ = true;
    return false;
  }
  failing_ = false;
  metrics_.presence_reports.Increment();
  const std::set<std::string> watched(response.watched_room_sids().begin(),
                                      response.watched_room_sids().end());
  for (const dispatch::v1::RoomPresence& room : report.rooms()) {
    if (room.closed()) {
      known_.erase(room.room_sid());
      continue;
    }
    Known& known = known_[room.room_sid()];
    known.people = people.at(room.room_sid());
    known.reported_us = NowUs();
    known.watched = watched.contains(room.room_sid());
  }
  return true;
}

}  // namespace parley::room_server
