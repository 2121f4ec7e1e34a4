// Nobody's first words are lost: people who speak before the agent is there, while its process is
// being replaced, or at once. With the real binaries and recordings of a person's voice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "audio/wav.h"
#include "base/status.h"
#include "testing/calls.h"

namespace parley::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr int kRateHz = 48'000;
constexpr absl::Duration kLong = absl::Seconds(30);

class EarlySpeechTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(Clip("Front_Center"))) {
      GTEST_SKIP() << "alsa-utils is not installed";
    }
    ClusterOptions options;
    options.agent_servers = 0;
    options.agent_arguments = {"--log-level", "debug"};
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    api_ = std::make_unique<Api>(*cluster_);
    const absl::Status registered = api_->RegisterFile(
        std::string(std::getenv("PARLEY_SOURCE_DIR")) + "/examples/speaker-check.yaml");
    ASSERT_TRUE(registered.ok()) << registered;
  }

  static std::string Clip(const std::string& name) {
    return "/usr/share/sounds/alsa/" + name + ".wav";
  }

  // Somebody who speaks the moment they are in, whoever is there.
  absl::StatusOr<std::unique_ptr<caller::Caller>> CallAndSpeak(const std::string& clip) {
    PARLEY_ASSIGN_OR_RETURN(const std::vector<int16_t> samples,
                            audio::ReadSpeech(Clip(clip), kRateHz));
    PARLEY_ASSIGN_OR_RETURN(const json session,
                            api_->Call("POST", "/api/sessions", {{"agent", "speaker-check"}}));
    caller::CallerOptions options;
    options.token = session["participantToken"].get<std::string>();
    options.media_url = session["mediaUrl"].get<std::string>();
    PARLEY_ASSIGN_OR_RETURN(auto caller, caller::Caller::Connect(options));
    PARLEY_RETURN_IF_ERROR(caller->Play(samples, kRateHz));
    return caller;
  }
  static std::string Understood(caller::Caller& caller, int64_t after_us = 0) {
    const auto heard = caller.WaitForTranscript(/*of_agent=*/false, after_us, kLong);
    return heard.ok() ? heard->text : std::string(heard.status().message());
  }
  // Of the job that was last said to run.
  pid_t Job() {
    pid_t pid = 0;
    std::istringstream lines(cluster_->AgentServer(0).Log());
    for (std::string text; std::getline(lines, text);) {
      const json line = json::parse(text, nullptr, false);
      if (line.is_object() && line.value("msg", "") == "job running") pid = line["pid"];
    }
    return pid;
  }

  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Api> api_;
};

TEST_F(EarlySpeechTest, WhoSpeaksBeforeThereIsAnyAgentIsHeardAndAnswered) {
  const auto caller = CallAndSpeak("Front_Center");
  ASSERT_TRUE(caller.ok()) << caller.status();
  const auto said_us = (*caller)->WaitPlayed(kLong);
  ASSERT_TRUE(said_us.ok()) << said_us.status();
  // Only now is there anybody who could take the job; all was said long before.
  const absl::Status started = cluster_->StartAgentServer();
  ASSERT_TRUE(started.ok()) << started;
  const auto agent = (*caller)->WaitForAgent(kLong);
  ASSERT_TRUE(agent.ok()) << agent.status();
  EXPECT_GT((*caller)->NowMicros(), *said_us);
  EXPECT_EQ(Understood(**caller), "front center");
  const auto answer = (*caller)->WaitForTranscript(/*of_agent=*/true, 0, kLong);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->text, "I heard front center.");
}

TEST_F(EarlySpeechTest, WhoSpeaksAtOnceAndWhoSpeaksWhileTheAgentIsReplacedIsHeard) {
  const absl::Status started = cluster_->StartAgentServer();
  ASSERT_TRUE(started.ok()) << started;
  std::unique_ptr<caller::Caller> last;
  for (const auto& [clip, said] :
       {std::pair("Rear_Left", "rear left"), std::pair("Side_Right", "side right")}) {
    auto caller = CallAndSpeak(clip);
    ASSERT_TRUE(caller.ok()) << caller.status();
    EXPECT_EQ(Understood(**caller), said);
    last = *std::move(caller);
  }
  ASSERT_TRUE(last->WaitForAgentSilence(0, absl::Milliseconds(500), kLong).ok());
  // The process of its agent dies just before the caller speaks.
  ASSERT_GT(Job(), 0);
  const int64_t killed_us = last->NowMicros();
  kill(Job(), SIGKILL);
  const auto samples = audio::ReadSpeech(Clip("Front_Left"), kRateHz);
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_TRUE(last->Play(*samples, kRateHz).ok());
  EXPECT_EQ(Understood(*last, killed_us), "front left");
}

// The one above may be back before a word is said; here nobody is until all of them are.
TEST_F(EarlySpeechTest, WhoSpeaksWhileNobodyCouldTakeTheAgentsPlaceIsHeard) {
  const absl::Status started = cluster_->StartAgentServer();
  ASSERT_TRUE(started.ok()) << started;
  const auto caller = CallAndSpeak("Rear_Left");
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(Understood(**caller), "rear left");
  ASSERT_TRUE((*caller)->WaitForAgentSilence(0, absl::Milliseconds(500), kLong).ok());
  const int64_t killed_us = (*caller)->NowMicros();
  cluster_->AgentServer(0).Signal(SIGKILL);
  ASSERT_TRUE((*caller)
                  ->WaitFor(
                      "the agent to be gone",
                      [](const caller::CallEvent& event) {
                        return event.type == caller::CallEvent::Type::kParticipantLeft;
                      },
                      kLong, killed_us)
                  .ok());
  const auto samples = audio::ReadSpeech(Clip("Front_Right"), kRateHz);
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_TRUE((*caller)->Play(*samples, kRateHz).ok());
  ASSERT_TRUE((*caller)->WaitPlayed(kLong).ok());
  const absl::Status again = cluster_->StartAgentServer();
  ASSERT_TRUE(again.ok()) << again;
  EXPECT_EQ(Understood(**caller, killed_us), "front right");
}

}  // namespace
}  // namespace parley::testing
