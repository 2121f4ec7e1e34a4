// Recordings of people through the whole path: room, Opus, agent server, job process, VAD,
// recogniser. Prints every transcript beside what was said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "audio/wav.h"
#include "testing/calls.h"

namespace parley::testing {
namespace {

constexpr int kRateHz = 48'000;

struct Recording {
  std::string path;
  std::string said;
};

class HumanSpeechTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ClusterOptions options;
    options.services = {"agent-registry", "dispatch-broker", "room-server", "stt-gateway",
                        "tts-gateway",    "llm-gateway",     "api-server"};
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = cluster->release();
  }
  static void TearDownTestSuite() { delete cluster_; }

  // What the agent understood of `path`: the final transcript of the caller.
  static std::string Hear(Api& api, const std::string& agent, const std::string& path) {
    const auto samples = audio::ReadSpeech(path, kRateHz);
    EXPECT_TRUE(samples.ok()) << samples.status();
    auto caller = api.Call(agent);
    EXPECT_TRUE(caller.ok()) << caller.status();
    if (!samples.ok() || !caller.ok()) return {};
    EXPECT_TRUE((*caller)->Play(*samples, kRateHz).ok());
    const auto transcript = (*caller)->WaitForTranscript(/*of_agent=*/false, 0, absl::Seconds(30));
    return transcript.ok() ? transcript->text : std::string(transcript.status().message());
  }

  // Two calls at a time.
  static int CountUnderstood(const std::string& agent, const std::vector<Recording>& recordings) {
    std::vector<std::string> heard(recordings.size());
    const auto call = [&](size_t from) {
      Api api(*cluster_);
      for (size_t i = from; i < recordings.size(); i += 2) {
        heard[i] = Hear(api, agent, recordings[i].path);
      }
    };
    std::thread other(call, 1);
    call(0);
    other.join();
    int understood = 0;
    for (size_t i = 0; i < recordings.size(); ++i) {
      const Recording& recording = recordings[i];
      const bool right = heard[i].find(recording.said) != std::string::npos;
      std::printf("  %-28s said: %-24s heard: %s%s\n",
                  std::filesystem::path(recording.path).filename().c_str(), recording.said.c_str(),
                  heard[i].c_str(), right ? "" : "   <-- not understood");
      understood += right ? 1 : 0;
    }
    return understood;
  }

  static Cluster* cluster_;
};
Cluster* HumanSpeechTest::cluster_ = nullptr;

TEST_F(HumanSpeechTest, AllEightClipsOfAlsaUtils) {
  const std::string folder = "/usr/share/sounds/alsa/";
  ASSERT_TRUE(std::filesystem::exists(folder + "Front_Center.wav")) << "install alsa-utils";
  Api api(*cluster_);
  ASSERT_TRUE(api.RegisterFile(std::string(std::getenv("PARLEY_SOURCE_DIR")) +
                               "/examples/speaker-check.yaml")
                  .ok());
  const std::vector<Recording> clips = {
      {folder + "Front_Center.wav", "front center"}, {folder + "Front_Left.wav", "front left"},
      {folder + "Front_Right.wav", "front right"},   {folder + "Rear_Center.wav", "rear center"},
      {folder + "Rear_Left.wav", "rear left"},       {folder + "Rear_Right.wav", "rear right"},
      {folder + "Side_Left.wav", "side left"},       {folder + "Side_Right.wav", "side right"}};
  EXPECT_EQ(CountUnderstood("speaker-check", clips), 8);
}

constexpr char kCommands[] = R"(
id: commands
instructions: Understand spoken commands.
stt: [{engine: pocketsphinx, grammar: commands}]
llm: [{engine: rules, rules: all}]
tts: [{engine: flite, voice: slt}]
grammars:
  commands: |
    #JSGF V1.0;
    grammar commands;
    public <command> = <move> | <cards>;
    <move> = (go | turn) (forward | backward | left | right) [<count> (meter | meters)];
    <cards> = <card> [of] [<card>] [of <suit>];
    <card> = ace | <count> | jack | queen | king;
    <suit> = clubs | diamonds | hearts | spades;
    <count> = one | two | three | four | five | six | seven | eight | nine | ten;
rules:
  all:
    - {otherwise: "Understood."}
)";

TEST_F(HumanSpeechTest, ThreeOfFourCommands) {
  const char* folder = std::getenv("PARLEY_TEST_AUDIO");
  if (folder == nullptr || *folder == '\0')
    GTEST_SKIP() << "PARLEY_TEST_AUDIO names no folder with recordings";
  Api api(*cluster_);
  const absl::Status registered = api.Register(kCommands);
  ASSERT_TRUE(registered.ok()) << registered;
  const std::string base = std::string(folder) + "/";
  const std::vector<Recording> commands = {
      {base + "go-forward-ten-meters.wav", "go forward ten meters"},
      {base + "cards-001.wav", "ten of clubs"},
      {base + "cards-002.wav", "four queen of clubs"},
      {base + "cards-003.wav", "seven of clubs"}};
  EXPECT_GE(CountUnderstood("commands", commands), 3);
}

}  // namespace
}  // namespace parley::testing
