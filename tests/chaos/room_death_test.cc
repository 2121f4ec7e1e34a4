// Two room servers, and calls on one of them that is killed, or stopped, or stands still, in their
// midst: its rooms go on at the other one, under the same sids, with the agents they had and no
// second ones. The agents remember in their own memory what they were told, so an answer shows that
// nobody took their place.
#include <map>

#include "outage_fixture.h"

namespace parley::testing {
namespace {

constexpr auto kFirst = "room-server";
constexpr auto kSecond = "room-server-2";

class RoomDeathTest : public OutageTest {
 protected:
  void SetUp() override {
    ClusterOptions options;
    options.services = {"agent-registry", "dispatch-broker", kFirst,        kSecond,
                        "stt-gateway",    "tts-gateway",     "llm-gateway", "api-server"};
    options.extra_arguments["room-server"] = {"--drain", "1s"};
    ASSERT_NO_FATAL_FAILURE(StartCluster(options));
    ASSERT_NO_FATAL_FAILURE(AddServer());
  }
  void TearDown() override {
    people_.clear();
    OutageTest::TearDown();
  }

  struct Person {
    std::string room;
    std::string word;
    std::string sid;  // of the room
    caller::CallerOptions options;
    std::unique_ptr<caller::Caller> caller;
  };

  // Somebody whose token names the agent, in a room that the first server has.
  absl::Status Enter(const std::string& room) {
    auto person = std::make_unique<Person>();
    person->room = room;
    person->word = "w" + room;
    auth::Claims claims;
    claims.identity = "caller-" + room;
    claims.video.room_join = true;
    claims.video.room = room;
    claims.room_agents.push_back({.agent_name = "memory"});
    person->options.token =
        auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1));
    person->options.media_url = cluster_->Address(kFirst);
    person->options.record = false;
    person->options.opus_complexity = 0;
    PARLEY_ASSIGN_OR_RETURN(person->caller, caller::Caller::Connect(person->options));
    person->sid = person->caller->room_sid();
    PARLEY_RETURN_IF_ERROR(person->caller->WaitForAgent(absl::Seconds(20)).status());
    PARLEY_RETURN_IF_ERROR(Say(*person, "my word is " + person->word, "Noted"));
    people_.push_back(std::move(person));
    return absl::OkStatus();
  }
  static absl::Status Say(Person& person, const std::string& text, const std::string& expected) {
    const int64_t at_us = person.caller->NowMicros();
    PARLEY_RETURN_IF_ERROR(person.caller->SendText(text));
    PARLEY_ASSIGN_OR_RETURN(const caller::Transcript answer,
                            person.caller->WaitForTranscript(true, at_us, absl::Seconds(15)));
    if (answer.text.find(expected) != std::string::npos) return absl::OkStatus();
    return Internal("to \"{}\" the agent said \"{}\"", text, answer.text);
  }

  // Comes back, at the other server, as a client does; answered once the agent has said what it was
  // told before. When that was.
  absl::StatusOr<absl::Time> ComeBack(Person& person) {
    const auto before = std::move(person.caller);  // hangs up at the end: nobody may be listening
    person.options.media_url = cluster_->Address(kSecond);
    person.options.connect_timeout = absl::Seconds(20);
    PARLEY_ASSIGN_OR_RETURN(person.caller, caller::Caller::Connect(person.options));
    PARLEY_RETURN_IF_ERROR(person.caller->WaitForAgent(absl::Seconds(20)).status());
    PARLEY_RETURN_IF_ERROR(Say(person, "what did I say before", "my word is " + person.word));
    return absl::Now();
  }
  void Signal(int signal) {
    cluster_->Service(kFirst).Signal(signal);
    ASSERT_OK(cluster_->Service(kFirst).Wait(absl::Seconds(10)).status());
  }

  // All of them at once; after how long each was answered.
  std::vector<double> AllComeBack(absl::Time since) {
    std::vector<absl::StatusOr<absl::Time>> back(people_.size(), Internal("not yet"));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < people_.size(); ++i) {
      threads.emplace_back([this, i, &back] { back[i] = ComeBack(*people_[i]); });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<double> seconds;
    for (const auto& one : back) {
      EXPECT_TRUE(one.ok()) << one.status() << "\n" << RoomLogs();
      if (one.ok()) seconds.push_back(absl::ToDoubleSeconds(*one - since));
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds;
  }

  // For two seconds there is one agent in each room, from one dispatch whose only job goes on; nor
  // does who asks for a session there, of any api_server, bring another.
  void ExpectOneAgentEach() {
    for (const auto& person : people_) {
      const auto session =
          api_->Call("POST", "/api/sessions", {{"agent", "memory"}, {"room", person->room}});
      ASSERT_OK(session.status());
      EXPECT_EQ((*session)["mediaUrl"], cluster_->Address(kSecond));
    }
    const absl::Time until = absl::Now() + absl::Seconds(2);
    do {
      const auto listed = api_->Call("GET", "/api/rooms");
      ASSERT_OK(listed.status());
      std::map<std::string, json> rooms;
      for (const json& room : (*listed)["rooms"]) rooms[room["name"].get<std::string>()] = room;
      for (const auto& person : people_) {
        const json& room = rooms[person->room];
        ASSERT_EQ(room["sid"], person->sid) << room;
        ASSERT_EQ(room["mediaUrl"], cluster_->Address(kSecond)) << room;
        ASSERT_LE(room["numAgents"].get<int>(), 1) << room;
      }
      absl::SleepFor(absl::Milliseconds(100));
    } while (absl::Now() < until);
    for (const auto& person : people_) {
      PARLEY_EXPECT_OK(Say(*person, "what did I say before", "my word is " + person->word));
      const auto made = api_->Call("GET", "/api/dispatches?ended=true&room=" + person->room);
      ASSERT_OK(made.status());
      EXPECT_EQ((*made)["dispatches"].size(), 1u) << *made;
      const auto jobs = api_->Call("GET", "/api/jobs?room=" + person->room);
      ASSERT_OK(jobs.status());
      ASSERT_EQ((*jobs)["jobs"].size(), 1u) << *jobs;
      EXPECT_EQ((*jobs)["jobs"][0]["state"], "RUNNING") << *jobs;
      EXPECT_EQ((*jobs)["jobs"][0]["attempt"], 1) << *jobs;
    }
  }

  std::string RoomLogs() {
    std::string text = Logs();
    for (const char* name : {kFirst, kSecond}) {
      const std::string log = cluster_->Service(name).Log();
      text +=
          std::string("--- ") + name + "\n" + log.substr(log.size() > 2500 ? log.size() - 2500 : 0);
    }
    return text;
  }

  std::vector<std::unique_ptr<Person>> people_;
};

TEST_F(RoomDeathTest, AKilledReplicasRoomsGoOnAtTheOtherWithTheAgentsTheyHad) {
  for (int i = 0; i < 4; ++i) ASSERT_OK(Enter(fmt::format("r{}", i)));
  const absl::Time killed = absl::Now();
  ASSERT_NO_FATAL_FAILURE(Signal(SIGKILL));
  const std::vector<double> seconds = AllComeBack(killed);
  ASSERT_EQ(seconds.size(), people_.size());
  fmt::print("answered again {:.1f} to {:.1f} s after the kill\n", seconds.front(), seconds.back());
  EXPECT_LT(seconds.back(), 12);
  ExpectOneAgentEach();
}

// No connection of its is closed, and its kernel goes on to accept new ones: as if its host had
// vanished, but that it wakes up.
TEST_F(RoomDeathTest, AReplicaThatStandsStillIsMissedAndLetsGoOfItsRoomsWhenItWakes) {
  for (int i = 0; i < 2; ++i) ASSERT_OK(Enter(fmt::format("r{}", i)));
  const absl::Time stood = absl::Now();
  cluster_->Service(kFirst).Signal(SIGSTOP);
  const std::vector<double> seconds = AllComeBack(stood);
  ASSERT_EQ(seconds.size(), people_.size());
  fmt::print("answered again {:.1f} to {:.1f} s after it stood still\n", seconds.front(),
             seconds.back());
  EXPECT_LT(seconds.back(), 12);
  cluster_->Service(kFirst).Signal(SIGCONT);
  EXPECT_TRUE(cluster_->Service(kFirst)
                  .WaitForLine("another room server holds this room", absl::Seconds(5))
                  .ok())
      << RoomLogs();
  ExpectOneAgentEach();
}

TEST_F(RoomDeathTest, AStoppedReplicasRoomsGoOnAtTheOtherAtOnce) {
  for (int i = 0; i < 2; ++i) ASSERT_OK(Enter(fmt::format("r{}", i)));
  const absl::Time stopped = absl::Now();
  ASSERT_NO_FATAL_FAILURE(Signal(SIGTERM));  // its people do not leave within the second it waits
  const std::vector<double> seconds = AllComeBack(stopped);
  ASSERT_EQ(seconds.size(), people_.size());
  fmt::print("answered again {:.1f} to {:.1f} s after the stop\n", seconds.front(), seconds.back());
  EXPECT_LT(seconds.back(), 6);
  ExpectOneAgentEach();
}

}  // namespace
}  // namespace parley::testing
