// What a conversation of a configured agent leaves behind and where its time goes, with the real
// binaries: parts of turns against the room's clock, recordings that outlive kill -9 and go with
// their sessions, tools of MCP servers, stages that stand still.
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sndfile.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <optional>
#include <sstream>
#include <thread>

#include "base/status.h"
#include "session/recording.h"
#include "testing/calls.h"
#include "testing/process.h"

namespace parley::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kScript[] = R"({
  "stt": {"delay": "30ms", "utterances": ["a room please"]},
  "llm": {"delay": "60ms", "answers": [{"text": "Eighty euros."}]},
  "tts": {"delay": "40ms", "per_character": "40ms"}})";

constexpr char kDesk[] = R"({"id": "desk",
  "stt": [{"engine": "scripted"}], "llm": [{"engine": "scripted"}], "tts": [{"engine": "scripted"}],
  "session": {"record": true, "record_sound": true}})";

constexpr char kKitchen[] = R"({"id": "ID", "mcp_servers": [SERVER],
  "stt": [{"engine": "scripted"}], "llm": [{"engine": "rules", "rules": "kitchen"}],
  "tts": [{"engine": "scripted"}],
  "rules": {"kitchen": [
    {"when": "what is the {name:menu|wine}", "call": "env", "say": "Today {result}."},
    {"when": "wait", "call": "slow", "say": "At last."},
    {"otherwise": "What?"}]}})";

bool Eventually(const std::function<bool()>& holds, absl::Duration within = absl::Seconds(15)) {
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(within);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Stretch {
  double from_ms;
  double to_ms;
};

// Where one side of a stereo file is not silent.
struct Sound {
  double seconds = 0;
  std::vector<Stretch> left, right;
};

std::vector<Stretch> Loud(const std::vector<float>& samples, size_t channel) {
  constexpr size_t kFrame = 480;  // 10 ms
  constexpr double kLoud = 0.01;
  constexpr double kGapMs = 300;  // inside of words
  std::vector<Stretch> stretches;
  for (size_t at = 0; (at + kFrame) * 2 <= samples.size(); at += kFrame) {
    double sum = 0;
    for (size_t i = at; i < at + kFrame; ++i) {
      const double sample = samples[2 * i + channel];
      sum += sample * sample;
    }
    if (std::sqrt(sum / kFrame) < kLoud) continue;
    const double ms = static_cast<double>(at) / 48;
    if (stretches.empty() || ms - stretches.back().to_ms > kGapMs) stretches.push_back({ms, ms});
    stretches.back().to_ms = ms + 10;
  }
  return stretches;
}

// Nothing: no player would open it.
std::optional<Sound> Play(const fs::path& path) {
  SF_INFO info{};
  SNDFILE* const file = sf_open(path.c_str(), SFM_READ, &info);
  if (file == nullptr) return std::nullopt;
  EXPECT_EQ(info.channels, 2);
  EXPECT_EQ(info.samplerate, 48'000);
  std::vector<float> samples(size_t{2} * 48'000 * 60);
  const sf_count_t frames = sf_readf_float(file, samples.data(), 48'000 * 60);
  sf_close(file);
  samples.resize(2 * static_cast<size_t>(frames));
  return Sound{static_cast<double>(frames) / 48'000, Loud(samples, 0), Loud(samples, 1)};
}

#define ASSERT_OK(expression)                                  \
  do {                                                         \
    const absl::Status parley_status = (expression);           \
    ASSERT_TRUE(parley_status.ok()) << parley_status << Log(); \
  } while (false)

class ConversationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "conversation-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    work_dir_ = pattern;
    std::ofstream(work_dir_ / "script.json") << kScript;
    std::ofstream(work_dir_ / "programs.yaml") << "kitchen: {command: [python3, " << McpScript()
                                               << ", stdio], environment: {menu: soup}}\n";
    ClusterOptions options;
    options.work_dir = work_dir_;
    options.agent_arguments = {"--slots",
                               "4",
                               "--log-level",
                               "debug",
                               "--mcp-servers",
                               work_dir_ / "programs.yaml",
                               "--recordings-folder",
                               Folder(),
                               "--tools-allow-loopback"};
    if (!Published().empty()) {
      options.agent_arguments.insert(options.agent_arguments.end(),
                                     {"--vad-model", Published() + "/silero/model.onnx"});
    }
    options.extra_arguments["agent-registry"] = {"--tools-allow-loopback"};
    for (const std::string kind : {"stt", "tts", "llm"}) {
      options.extra_arguments[kind + "-gateway"] = {"--" + kind + "-script",
                                                    work_dir_ / "script.json"};
    }
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    api_ = std::make_unique<Api>(*cluster_);
    ASSERT_OK(api_->Register(kDesk));
  }
  void TearDown() override {
    caller_.reset();
    api_.reset();
    cluster_.reset();
    std::error_code ignored;
    if (!work_dir_.empty()) fs::remove_all(work_dir_, ignored);
  }

  // Files of published packages; empty: this run does without.
  static std::string Published() {
    const char* const folder = std::getenv("PARLEY_PUBLISHED");
    return folder == nullptr ? "" : folder;
  }
  static std::string McpScript() {
    return std::string(std::getenv("PARLEY_SOURCE_DIR")) + "/tests/component/mcp_server.py";
  }
  fs::path Folder() const { return work_dir_ / "recordings"; }
  std::string Log() { return cluster_->AgentServer(0).Log(); }

  absl::Status Place(const std::string& agent) {
    PARLEY_ASSIGN_OR_RETURN(session_, api_->Call("POST", "/api/sessions", {{"agent", agent}}));
    caller::CallerOptions options;
    options.token = session_["participantToken"].get<std::string>();
    options.media_url = session_["mediaUrl"].get<std::string>();
    options.record = false;
    PARLEY_ASSIGN_OR_RETURN(caller_, caller::Caller::Connect(options));
    return caller_->WaitForAgent(absl::Seconds(20)).status();
  }
  std::string SessionId() const { return session_["sessionId"].get<std::string>(); }

  // From the last sound of a question to the first of its answer, as the room has them.
  absl::StatusOr<double> AskAloud() {
    PARLEY_ASSIGN_OR_RETURN(std::vector<int16_t> words, api_->Speech("a room please"));
    while (!words.empty() && std::abs(words.back()) < 300) words.pop_back();
    PARLEY_RETURN_IF_ERROR(caller_->Play(words, kSpeechRateHz));
    PARLEY_ASSIGN_OR_RETURN(const int64_t asked_us, caller_->WaitPlayed(absl::Seconds(15)));
    PARLEY_ASSIGN_OR_RETURN(const int64_t heard_us,
                            caller_->WaitForAgentAudio(asked_us, absl::Seconds(15)));
    PARLEY_RETURN_IF_ERROR(
        caller_->WaitForAgentSilence(heard_us, absl::Milliseconds(400), absl::Seconds(15))
            .status());
    return static_cast<double>(heard_us - asked_us) / 1000;
  }
  // The first that is as quick as that, or the quickest of three: who else uses the processor may
  // make an answer late, never early.
  absl::StatusOr<double> AskAloudWithin(double enough_ms) {
    double quickest_ms = std::numeric_limits<double>::max();
    for (int i = 0; i < 3 && quickest_ms > enough_ms; ++i) {
      PARLEY_ASSIGN_OR_RETURN(const double ms, AskAloud());
      quickest_ms = std::min(quickest_ms, ms);
    }
    return quickest_ms;
  }
  absl::StatusOr<std::string> AskInWriting(const std::string& text) {
    const int64_t at_us = caller_->NowMicros();
    PARLEY_RETURN_IF_ERROR(caller_->SendText(text));
    PARLEY_ASSIGN_OR_RETURN(const caller::Transcript answer,
                            caller_->WaitForTranscript(true, at_us, absl::Seconds(15)));
    return answer.text;
  }
  // The agent has said it since then, at the end of a transcript.
  bool Said(const std::string& text, int64_t after_us) const {
    const std::vector<caller::Transcript> all = caller_->transcripts();
    return std::any_of(all.begin(), all.end(), [&](const caller::Transcript& one) {
      return one.agent && one.last_at_us >= after_us && one.text.ends_with(text);
    });
  }
  // What the agent server logged under this message.
  std::vector<json> Lines(const std::string& message) {
    std::vector<json> found;
    std::istringstream lines(Log());
    for (std::string text; std::getline(lines, text);) {
      json line = json::parse(text, nullptr, false);
      if (line.is_object() && line.value("msg", "") == message) found.push_back(std::move(line));
    }
    return found;
  }
  // Of the session, with this ending.
  std::vector<fs::path> Files(const std::string& kind) {
    std::vector<fs::path> files;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(Folder(), none)) {
      const std::string name = entry.path().filename();
      if (name.find(SessionId()) != std::string::npos && name.ends_with(kind))
        files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
  }

  fs::path work_dir_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Api> api_;
  std::unique_ptr<caller::Caller> caller_;
  json session_;
};

TEST_F(ConversationTest, TurnsPartsSumToWhatTheRoomSeesAndTheRecordingHoldsThem) {
  constexpr int kTurns = 4;
  ASSERT_OK(Place("desk"));
  std::vector<double> room_ms;
  for (int i = 0; i < kTurns; ++i) {
    const auto ms = AskAloud();
    ASSERT_TRUE(ms.ok()) << ms.status() << Log();
    room_ms.push_back(*ms);
  }
  ASSERT_TRUE(Eventually([&] { return Lines("turn answered").size() >= kTurns; })) << Log();
  const std::vector<json> turns = Lines("turn answered");
  ASSERT_EQ(turns.size(), kTurns);
  std::vector<double> between;
  for (int i = 0; i < kTurns; ++i) {
    double sum = 0;
    for (const char* part : {"endpointing_ms", "transcript_ms", "llm_ms", "tts_ms", "output_ms"}) {
      const double ms = turns[i].value(part, -1.0);
      EXPECT_GE(ms, 0) << part;
      sum += ms;
    }
    const double total = turns[i].value("total_ms", 0.0);
    EXPECT_NEAR(sum, total, 0.01);
    // The engines are known: 60 and 40 ms; the 30 of the recogniser lie within the 500 of waiting.
    EXPECT_GE(turns[i].value("endpointing_ms", 0.0), 490);
    EXPECT_GE(turns[i].value("llm_ms", 0.0), 59);
    EXPECT_GE(turns[i].value("tts_ms", 0.0), 39);
    between.push_back(room_ms[i] - total);
    std::printf("  room %.1f ms, parts %.1f ms, between %.1f ms\n", room_ms[i], total,
                between.back());
  }
  // Beside the parts: the way through the room, there and back, and what the detector takes for the
  // end of a word. On a machine that others use, the turn that they disturbed least tells.
  std::sort(between.begin(), between.end());
  EXPECT_GT(between[kTurns / 2], -30);
  EXPECT_LT(between[0], 40);

  caller_->HangUp();
  ASSERT_TRUE(Eventually([&] { return Files(".jsonl").size() == 1 && Files(".ogg").size() == 1; }));
  const fs::path session = Files(".jsonl")[0];
  const fs::path ogg = Files(".ogg")[0];
  constexpr fs::perms kOwn = fs::perms::owner_read | fs::perms::owner_write;
  EXPECT_EQ(fs::status(session).permissions(), kOwn);
  EXPECT_EQ(fs::status(ogg).permissions(), kOwn);
  absl::StatusOr<session::Replayed> replayed = absl::UnknownError("");
  ASSERT_TRUE(Eventually([&] {
    replayed = session::Replay(ReadFile(session));
    return replayed.ok() && replayed->complete;
  })) << replayed.status();
  EXPECT_TRUE(replayed->identical);
  std::optional<Sound> sound;
  ASSERT_TRUE(Eventually([&] {
    sound = Play(ogg);
    return sound && sound->right.size() >= kTurns;
  }));
  ASSERT_EQ(sound->left.size(), kTurns);
  ASSERT_EQ(sound->right.size(), kTurns);
  for (int i = 0; i < kTurns; ++i) {
    const double gap_ms = sound->right[i].from_ms - sound->left[i].to_ms;
    std::printf("  in the recording: %.0f ms\n", gap_ms);
    EXPECT_NEAR(gap_ms, room_ms[i], 100);
  }
}

TEST_F(ConversationTest, ARecordingOutlivesKill9) {
  ASSERT_OK(Place("desk"));
  for (int i = 0; i < 2; ++i) {
    const auto ms = AskAloud();
    ASSERT_TRUE(ms.ok()) << ms.status() << Log();
  }
  const double talked_s = static_cast<double>(caller_->NowMicros()) / 1e6;
  const auto running = Lines("job running");
  ASSERT_FALSE(running.empty());
  // Its server closes the files as they should be.
  kill(running.back()["pid"].get<pid_t>(), SIGKILL);
  ASSERT_TRUE(Eventually([&] { return Files(".ogg").size() == 2; })) << "the second attempt's";
  const fs::path first = Files(".ogg")[0];
  const std::optional<Sound> sound = Play(first);
  ASSERT_TRUE(sound.has_value());
  EXPECT_GT(sound->seconds, talked_s - 3);
  EXPECT_GE(sound->left.size(), 2U);
  EXPECT_GE(sound->right.size(), 1U);
  const auto replayed = session::Replay(ReadFile(Files(".jsonl")[0]));
  ASSERT_TRUE(replayed.ok()) << replayed.status();
  EXPECT_FALSE(replayed->complete);
  EXPECT_GT(replayed->duration_us, static_cast<int64_t>((talked_s - 3) * 1e6));

  // Now the server itself, in the middle of a word: what it had written plays.
  const auto again = AskAloud();
  ASSERT_TRUE(again.ok()) << again.status() << Log();
  const fs::path second = Files(".ogg")[1];
  const std::string zygote = std::to_string(cluster_->AgentServer(0).pid());
  std::ifstream children("/proc/" + zygote + "/task/" + zygote + "/children");
  pid_t server = 0;
  children >> server;
  ASSERT_GT(server, 0);
  ASSERT_TRUE(Eventually([&] { return fs::file_size(second) > 4'000; }));
  kill(server, SIGKILL);
  ASSERT_TRUE(cluster_->AgentServer(0).Wait(absl::Seconds(20)).ok());
  const std::optional<Sound> cut = Play(second);
  ASSERT_TRUE(cut.has_value());
  EXPECT_GE(cut->seconds, 1);
  EXPECT_FALSE(cut->left.empty());
}

TEST_F(ConversationTest, ARecordingGoesWithItsSession) {
  ASSERT_OK(Place("desk"));
  const auto answer = AskInWriting("a room");
  ASSERT_TRUE(answer.ok()) << answer.status() << Log();
  caller_->HangUp();
  ASSERT_TRUE(Eventually([&] { return Files(".jsonl").size() == 1 && Files(".ogg").size() == 1; }));
  ASSERT_TRUE(Eventually([&] {
    const auto session = api_->Call("GET", "/api/sessions/" + SessionId());
    return session.ok() && session->value("state", "") != "RUNNING";
  }));
  ASSERT_OK(api_->Call("DELETE", "/api/sessions/" + SessionId()).status());
  EXPECT_TRUE(Eventually([&] { return fs::is_empty(Folder()); }));
}

TEST_F(ConversationTest, ToolsOfMcpServersRunAndAreNamedWhenTheyStandStill) {
  const auto process = Process::Start({"python3", McpScript(), "http", "events"},
                                      work_dir_ / "mcp.log", {{"wine", "red"}});
  ASSERT_TRUE(process.ok()) << process.status();
  const auto port = (*process)->WaitForLine("port ", absl::Seconds(10));
  ASSERT_TRUE(port.ok()) << port.status();
  const auto with = [](std::string id, const std::string& server) {
    std::string text = kKitchen;
    text.replace(text.find("ID"), 2, id);
    text.replace(text.find("SERVER"), 6, server);
    return text;
  };
  ASSERT_OK(api_->Register(with("cook", R"({"name": "kitchen", "timeout": "10s"})")));
  ASSERT_OK(api_->Register(
      with("waiter", R"({"url": "http://127.0.0.1:)" + port->substr(5) + R"(/mcp"})")));

  ASSERT_OK(Place("waiter"));
  EXPECT_EQ(AskInWriting("what is the wine").value_or(Log()), "Today red.");
  caller_->HangUp();

  ASSERT_OK(Place("cook"));
  const int64_t placed_us = caller_->NowMicros();
  EXPECT_EQ(AskInWriting("what is the menu").value_or(Log()), "Today soup.");
  ASSERT_OK(
      caller_->WaitForAgentSilence(placed_us, absl::Milliseconds(300), absl::Seconds(5)).status());
  const absl::Time asked = absl::Now();
  const int64_t asked_us = caller_->NowMicros();
  ASSERT_OK(caller_->SendText("wait"));
  // With nothing but defaults, whoever waits hears the agent within two seconds.
  const auto heard_us = caller_->WaitForAgentAudio(asked_us, absl::Seconds(5));
  ASSERT_OK(heard_us.status());
  std::printf("  the agent was heard %.2f s after the question\n",
              static_cast<double>(*heard_us - asked_us) / 1e6);
  EXPECT_LT(*heard_us - asked_us, 2'000'000);
  EXPECT_TRUE(Eventually([&] { return Said("One moment, please.", asked_us); }));
  json told;
  bool given_up = false;
  ASSERT_TRUE(Eventually([&] {
    const auto events =
        api_->Call("GET", "/api/events?room=" + session_["roomName"].get<std::string>());
    if (!events.ok()) return false;
    for (const json& event : (*events)["events"]) {
      if (event["type"] == "job_slow_tool") told = event;
      given_up = given_up || event["type"] == "job_gave_up_tool";
    }
    return given_up && !told.is_null();
  })) << Log();
  EXPECT_EQ(told["state"], "RUNNING");
  EXPECT_FALSE(told["jobId"].get<std::string>().empty());
  absl::Time named;
  ASSERT_TRUE(
      absl::ParseTime(absl::RFC3339_full, told["time"].get<std::string>(), &named, nullptr));
  std::printf("  named %.2f s after the question\n", absl::ToDoubleSeconds(named - asked));
  EXPECT_LT(named - asked, absl::Milliseconds(1'300));
  // The caller goes on, and the tool that nobody waits for any more is told so.
  const int64_t again_us = caller_->NowMicros();
  ASSERT_OK(caller_->SendText("what is the menu"));
  EXPECT_TRUE(Eventually([&] { return Said("Today soup.", again_us); })) << Log();
  EXPECT_LT(caller_->NowMicros() - asked_us, 8'000'000) << "the tool takes ten seconds";
}

TEST_F(ConversationTest, ABackgroundIsHeardBesideTheVoice) {
  std::string definition = kDesk;
  definition.replace(definition.find("desk"), 4, "lobby");
  definition.insert(definition.rfind('}'),
                    R"(, "background": {"ambient": "office", "thinking": "keyboard"})");
  ASSERT_OK(api_->Register(definition));
  ASSERT_OK(Place("lobby"));
  const auto ms = AskAloudWithin(750);
  ASSERT_TRUE(ms.ok()) << ms.status() << Log();
  EXPECT_NEAR(*ms, 600, 150) << "nothing of the voice waits for it";
  const int64_t before = caller_->counters().frames_background;
  const int64_t since_us = caller_->NowMicros();
  ASSERT_TRUE(Eventually([&] { return caller_->counters().frames_background >= before + 100; }));
  EXPECT_NEAR(static_cast<double>(caller_->NowMicros() - since_us) / 1e6, 2, 0.5);
  EXPECT_EQ(caller_->counters().frames_undecodable, 0);
}

TEST_F(ConversationTest, SilerosDetectorHearsWhereItsFileIs) {
  std::string definition = kDesk;
  definition.replace(definition.find("desk"), 4, "keen");
  definition.insert(definition.rfind('}'), R"(, "turn_detection": {"vad": "silero"})");
  ASSERT_OK(api_->Register(definition));
  ASSERT_OK(Place("keen"));
  const auto ms = AskAloudWithin(750);
  ASSERT_TRUE(ms.ok()) << ms.status() << Log();
  std::printf("  answered after %.0f ms\n", *ms);
  EXPECT_NEAR(*ms, 600, 150);
  // Without it the other one hears, and says so.
  const bool said = Log().find("the neural voice detector is not here") != std::string::npos;
  EXPECT_EQ(said, Published().empty());
}

TEST(AgentServerTest, AVoiceDetectorThatIsNotThereStopsTheStart) {
  const std::string log = ::testing::TempDir() + "no-detector.log";
  const auto process =
      Process::Start({std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-agent-server", "--dev",
                      "--vad-model", "/no/such/model.onnx"},
                     log);
  ASSERT_TRUE(process.ok()) << process.status();
  const auto code = (*process)->Wait(absl::Seconds(10));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_NE(*code, 0);
  EXPECT_THAT((*process)->Log(), HasSubstr("/no/such/model.onnx"));
  fs::remove(log);
}

}  // namespace
}  // namespace parley::testing
