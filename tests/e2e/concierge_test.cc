// The concierge of examples/, an agent program as its users write them, in a cluster of real
// processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "base/status.h"
#include "testing/calls.h"
#include "testing/matchers.h"

namespace parley {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(30);

absl::StatusOr<std::string> Answer(caller::Caller& caller, const std::string& words) {
  const int64_t asked_us = caller.NowMicros();
  PARLEY_RETURN_IF_ERROR(caller.SendText(words));
  PARLEY_ASSIGN_OR_RETURN(const caller::Transcript answer,
                          caller.WaitForTranscript(/*of_agent=*/true, asked_us, kLong));
  return answer.text;
}

pid_t PidIn(const std::string& line) { return nlohmann::json::parse(line)["pid"].get<pid_t>(); }

testing::ClusterOptions Options(int agent_servers) {
  testing::ClusterOptions options;
  options.agent_binary = "concierge";
  options.agent_servers = agent_servers;
  return options;
}

TEST(ConciergeTest, KnowsWhatItHasBookedWhenItsProcessWasLost) {
  PARLEY_ASSERT_OK_AND_ASSIGN(auto cluster, testing::Cluster::Start(Options(1)));
  testing::Api api(*cluster);
  PARLEY_ASSERT_OK_AND_ASSIGN(auto caller, api.Call("concierge"));
  PARLEY_ASSERT_OK(caller->SendText("one moment"));  // its agent refuses to answer that
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::string booked, Answer(*caller, "book a table for dinner"));
  EXPECT_EQ(booked, "I have booked a table for dinner.");

  testing::Process& server = cluster->AgentServer(0);
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::string running,
                              server.WaitForLine("\"msg\":\"job running\"", kLong));
  const int64_t killed_us = caller->NowMicros();
  ASSERT_EQ(kill(PidIn(running), SIGKILL), 0);
  PARLEY_ASSERT_OK(caller
                       ->WaitFor(
                           "another agent",
                           [](const caller::CallEvent& event) {
                             return event.type == caller::CallEvent::Type::kAgentAudible;
                           },
                           kLong, killed_us)
                       .status());
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::string kept, Answer(*caller, "what have i booked"));
  EXPECT_EQ(kept, "You have booked a table for dinner.");
}

// `dev`: the program is rebuilt under a call. The call goes on in the old one, the next is the new
// one's, and the old one is gone when its call is over.
TEST(ConciergeTest, ARebuiltProgramTakesTheNextCall) {
  PARLEY_ASSERT_OK_AND_ASSIGN(auto cluster, testing::Cluster::Start(Options(0)));
  const std::string program = cluster->work_dir() + "/program";
  const char* bin = std::getenv("PARLEY_BIN_DIR");
  ASSERT_NE(bin, nullptr);
  std::filesystem::copy_file(std::string(bin) + "/concierge", program);
  const std::string log = cluster->work_dir() + "/program.log";
  PARLEY_ASSERT_OK_AND_ASSIGN(
      auto dev,
      testing::Process::Start(
          {program, "dev", "--log-format", "json", "--dispatch-address",
           cluster->Address("dispatch-broker"), "--rooms-address", cluster->Address("room-server"),
           "--stt-address", cluster->Address("stt-gateway"), "--tts-address",
           cluster->Address("tts-gateway"), "--llm-address", cluster->Address("llm-gateway")},
          log));
  PARLEY_ASSERT_OK(dev->WaitForLine("\"msg\":\"registered\"", kLong).status());
  testing::Api api(*cluster);
  PARLEY_ASSERT_OK_AND_ASSIGN(auto first, api.Call("concierge"));

  // A build in the way of builds: another file with other bytes in the same place.
  std::filesystem::copy_file(program, program + ".new");
  std::ofstream(program + ".new", std::ios::app | std::ios::binary) << "another build";
  std::filesystem::rename(program + ".new", program);
  PARLEY_ASSERT_OK(dev->WaitForLine("rebuilt", kLong).status());
  PARLEY_EXPECT_OK(dev->WaitForLine("\"msg\":\"draining\"", kLong).status());

  PARLEY_ASSERT_OK_AND_ASSIGN(auto second, api.Call("concierge"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::string before, Answer(*first, "when is breakfast"));
  EXPECT_THAT(before, HasSubstr("seven to ten"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::string after, Answer(*second, "when is breakfast"));
  EXPECT_THAT(after, HasSubstr("seven to ten"));
  first->HangUp();
  PARLEY_EXPECT_OK(dev->WaitForLine("\"msg\":\"stopped\"", kLong).status()) << "the old build";
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::string still, Answer(*second, "thank you"));
  EXPECT_THAT(still, HasSubstr("welcome"));
  second->HangUp();
  dev->Signal(SIGTERM);
  PARLEY_ASSERT_OK_AND_ASSIGN(const int code, dev->Wait(kLong));
  EXPECT_EQ(code, 0);
}

// `connect`: the agent goes into a room that nobody called it to, and ends when the room does.
TEST(ConciergeTest, GoesWhereItIsSent) {
  PARLEY_ASSERT_OK_AND_ASSIGN(auto cluster, testing::Cluster::Start(Options(0)));
  testing::Api api(*cluster);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto details,
                              api.Call("POST", "/api/connection-details",
                                       {{"room_name", "lobby"}, {"participant_identity", "ann"}}));
  caller::CallerOptions options;
  options.token = details["participant_token"].get<std::string>();
  options.media_url = cluster->Address("room-server");
  PARLEY_ASSERT_OK_AND_ASSIGN(auto caller, caller::Caller::Connect(options));
  const char* bin = std::getenv("PARLEY_BIN_DIR");
  ASSERT_NE(bin, nullptr);
  PARLEY_ASSERT_OK_AND_ASSIGN(
      auto program,
      testing::Process::Start(
          {std::string(bin) + "/concierge", "connect", "--room", "lobby", "--dispatch-address",
           cluster->Address("dispatch-broker"), "--rooms-address", cluster->Address("room-server"),
           "--stt-address", cluster->Address("stt-gateway"), "--tts-address",
           cluster->Address("tts-gateway"), "--llm-address", cluster->Address("llm-gateway")},
          cluster->work_dir() + "/connect.log"));
  PARLEY_ASSERT_OK(caller->WaitForAgent(kLong).status()) << program->Log();
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::string answer, Answer(*caller, "when is breakfast"));
  EXPECT_THAT(answer, HasSubstr("seven to ten"));
  caller->HangUp();
  PARLEY_ASSERT_OK_AND_ASSIGN(const int code, program->Wait(kLong));
  EXPECT_EQ(code, 0) << program->Log();
}

}  // namespace
}  // namespace parley
