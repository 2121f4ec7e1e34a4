#pragma once
// People in rooms of one room server that is lost in the midst of their calls; they come back at
// another one.
#include <algorithm>
#include <map>

#include "outage_fixture.h"

namespace parley::testing {

class RoomCallsTest : public OutageTest {
 protected:
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

  // Somebody whose token names the agent, in a room of the server at `media_url`; the agent is told
  // a word.
  absl::Status Enter(const std::string& room, const std::string& media_url) {
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
    person->options.media_url = media_url;
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

  // Comes back at the other server, as a client does; answered once the agent has said what it was
  // told before. When that was.
  absl::StatusOr<absl::Time> ComeBack(Person& person, const std::string& media_url) {
    const auto before = std::move(person.caller);  // hangs up at the end: nobody may be listening
    person.options.media_url = media_url;
    person.options.connect_timeout = absl::Seconds(20);
    PARLEY_ASSIGN_OR_RETURN(person.caller, caller::Caller::Connect(person.options));
    PARLEY_RETURN_IF_ERROR(person.caller->WaitForAgent(kAgentComes).status());
    PARLEY_RETURN_IF_ERROR(Say(person, "what did I say before", "my word is " + person.word));
    return absl::Now();
  }

  // All of them at once; after how long each was answered, in the order of people_.
  std::vector<double> AllComeBack(absl::Time since, const std::string& media_url) {
    std::vector<absl::StatusOr<absl::Time>> back(people_.size(), Internal("not yet"));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < people_.size(); ++i) {
      threads.emplace_back(
          [this, i, &back, &media_url] { back[i] = ComeBack(*people_[i], media_url); });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<double> seconds;
    for (const auto& one : back) {
      EXPECT_TRUE(one.ok()) << one.status() << "\n" << RoomLogs();
      if (one.ok()) seconds.push_back(absl::ToDoubleSeconds(*one - since));
    }
    return seconds;
  }

  // For two seconds there is one agent in each room, which the server at `media_url` has under the
  // sid of before.
  void ExpectOneAgentEach(const std::string& media_url) {
    const absl::Time until = absl::Now() + absl::Seconds(2);
    do {
      const auto listed = api_->Call("GET", "/api/rooms");
      ASSERT_OK(listed.status());
      std::map<std::string, json> rooms;
      for (const json& room : (*listed)["rooms"]) rooms[room["name"].get<std::string>()] = room;
      for (const auto& person : people_) {
        const json& room = rooms[person->room];
        ASSERT_EQ(room["sid"], person->sid) << room;
        ASSERT_EQ(room["mediaUrl"], media_url) << room;
        ASSERT_LE(room["numAgents"].get<int>(), 1) << room;
      }
      absl::SleepFor(absl::Milliseconds(100));
    } while (absl::Now() < until);
  }
  // It remembers; there was one dispatch, whose only job goes on, as this attempt.
  void ExpectAgentOfAttempt(Person& person, int attempt) {
    PARLEY_EXPECT_OK(Say(person, "what did I say before", "my word is " + person.word));
    const auto made = api_->Call("GET", "/api/dispatches?ended=true&room=" + person.room);
    ASSERT_OK(made.status());
    EXPECT_EQ((*made)["dispatches"].size(), 1u) << *made;
    const auto jobs = api_->Call("GET", "/api/jobs?room=" + person.room);
    ASSERT_OK(jobs.status());
    ASSERT_EQ((*jobs)["jobs"].size(), 1u) << *jobs;
    EXPECT_EQ((*jobs)["jobs"][0]["state"], "RUNNING") << *jobs;
    EXPECT_EQ((*jobs)["jobs"][0]["attempt"], attempt) << *jobs;
  }

  virtual std::string RoomLogs() { return Logs(); }

  static constexpr absl::Duration kAgentComes = absl::Seconds(40);
  std::vector<std::unique_ptr<Person>> people_;
};

}  // namespace parley::testing
