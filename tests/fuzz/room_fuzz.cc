// Plays bytes as a run of joins, leaves, tracks, packets, fences and time on one room, and checks
// what must hold after each step: one participant an identity, one attempt a job and never below
// its fence, and sinks that hear `joined` first and nothing after `disconnected`.
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/check.h"
#include "room/room.h"
#include "testing/fake_clock.h"

namespace {

using namespace parley::room;  // NOLINT: a fuzz target is one small program

class CheckingSink : public ParticipantSink {
 public:
  void OnJoined(const Joined& joined) override {
    PARLEY_CHECK(!joined_);
    joined_ = true;
    for (const auto& other : joined.others) PARLEY_CHECK(other.identity != joined.self.identity);
  }
  void OnEvent(const Event& event) override {
    PARLEY_CHECK(joined_ && !gone_);
    if (const auto* started = std::get_if<SubscriptionStarted>(&event)) {
      PARLEY_CHECK(numbers_.insert(started->track_number).second);
    }
    gone_ = std::holds_alternative<Disconnected>(event);
  }
  void OnFrame(uint32_t track_number, const Frame&) override {
    PARLEY_CHECK(joined_ && !gone_);
    PARLEY_CHECK(numbers_.contains(track_number));
  }

 private:
  bool joined_ = false;
  bool gone_ = false;
  std::set<uint32_t> numbers_;
};

class Script {
 public:
  Script(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool done() const { return at_ >= size_; }
  uint8_t Byte() { return done() ? 0 : data_[at_++]; }
  std::string Text() {
    const size_t length = std::min<size_t>(Byte() % 16, size_ - at_);
    std::string text(reinterpret_cast<const char*>(data_ + at_), length);
    at_ += length;
    return text;
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

struct World {
  parley::testing::FakeClock clock;
  std::shared_ptr<Room> room = *Room::Create(
      {.project = "p", .name = "r", .empty_timeout = absl::Seconds(30), .max_participants = 4},
      clock);
  std::vector<std::shared_ptr<Participant>> seats;
  std::map<std::string, uint64_t> highest;  // by job

  // Seats and their room hold each other until it closes.
  ~World() { room->Close(LeaveReason::kRoomClosed); }

  void Join(Script& script) {
    JoinRequest request;
    const uint8_t who = script.Byte();
    request.identity = std::string(1, static_cast<char>('a' + who % 6));
    const uint8_t what = script.Byte();
    request.permission.hidden = (what & 1) != 0;
    request.permission.can_subscribe = (what & 2) == 0;
    request.permission.can_publish = (what & 4) == 0;
    request.permission.can_update_metadata = (what & 8) != 0;
    request.auto_subscribe = (what & 16) == 0;
    if ((what & 32) != 0) {
      request.kind = Kind::kAgent;
      const uint8_t job = script.Byte();
      request.job = JobClaim{"AJ_" + std::to_string(job % 3), script.Byte() % 8u,
                             "AW_" + std::to_string(job / 3 % 2), "i"};
    }
    auto seat = room->Join(request, std::make_shared<CheckingSink>());
    if (request.job) {
      uint64_t& highest_token = highest[request.job->job_id];
      PARLEY_CHECK(!seat.ok() || request.job->token >= highest_token);
      if (seat.ok()) highest_token = request.job->token;
    }
    if (seat.ok()) seats.push_back(*std::move(seat));
  }

  void Act(Participant& seat, Script& script) {
    const auto tracks = room->participants();
    std::string sid = "TR_none";
    for (const auto& participant : tracks) {
      if (!participant.tracks.empty())
        sid = participant.tracks[script.Byte() % participant.tracks.size()].sid;
    }
    switch (script.Byte() % 10) {
      case 0:
        return seat.Leave(LeaveReason::kClientInitiated);
      case 1:
        (void)seat.Publish({.cid = script.Text(), .name = script.Text()});
        return;
      case 2:
        (void)seat.Unpublish(sid);
        return;
      case 3:
        (void)seat.SetMuted(sid, script.Byte() % 2 == 0);
        return;
      case 4:
        (void)seat.SetSubscribed(sid, script.Byte() % 2 == 0);
        return;
      case 5:
        (void)seat.Update(
            {.metadata = script.Text(), .attributes = {{script.Text(), script.Text()}}});
        return;
      case 6:
        (void)seat.SendText({.topic = script.Text(), .text = script.Text()});
        return;
      case 7:
        (void)seat.SendData({.payload = script.Text(), .destination_identities = {script.Text()}});
        return;
      default: {
        const std::string frame = script.Text();
        seat.SendFrame(script.Byte() % 20, {.data = frame});
      }
    }
  }

  void Step(Script& script) {
    switch (script.Byte() % 8) {
      case 0:
      case 1:
        return Join(script);
      case 2: {
        const std::string job = "AJ_" + std::to_string(script.Byte() % 3);
        const uint64_t lowest = script.Byte() % 8u;
        room->Fence(job, lowest);
        highest[job] = std::max(highest[job], lowest);
        return;
      }
      case 3:
        clock.Advance(absl::Seconds(script.Byte() % 40));
        room->CloseIfDue();
        return;
      default:
        if (!seats.empty()) Act(*seats[script.Byte() % seats.size()], script);
    }
  }

  void Check() const {
    std::set<std::string> identities;
    std::set<std::string> jobs;
    int people = 0;
    for (const ParticipantInfo& participant : room->participants()) {
      PARLEY_CHECK(identities.insert(participant.identity).second);
      PARLEY_CHECK(participant.job_id.empty() || jobs.insert(participant.job_id).second);
      people += IsPerson(participant.kind) ? 1 : 0;
    }
    PARLEY_CHECK(people <= 4);
    PARLEY_CHECK(people == room->info().num_participants);
    PARLEY_CHECK(!room->closed() || identities.empty());
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Script script(data, std::min<size_t>(size, 2048));
  World world;
  while (!script.done()) {
    world.Step(script);
    world.Check();
  }
  return 0;
}
