// A call with a model that hears and speaks: real binaries, real audio, and a provider that checks
// every message.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "audio/wav.h"
#include "base/mutex.h"
#include "testing/calls.h"
#include "testing/matchers.h"
#include "testing/realtime_provider.h"

namespace parley::testing {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Le;

constexpr absl::Duration kLong = absl::Seconds(15);
constexpr int kRateHz = RealtimeProvider::kRateHz;
const char* const kClip = "/usr/share/sounds/alsa/Front_Center.wav";

// What the provider was asked, and what it says: by the number of the answer.
class Script {
 public:
  explicit Script(std::vector<int16_t> speech) : speech_(std::move(speech)) {}

  RealtimeProvider::Answer operator()(const RealtimeProvider::Asked& asked) {
    MutexLock lock(&mutex_);
    asked_.push_back(asked);
    if (std::exchange(stands_still_, false)) return {.silent = true};
    RealtimeProvider::Answer answer{.text = "Front center.", .samples = speech_};
    constexpr std::string_view kWordForWord = "nothing else: ";
    if (const size_t at = asked.instructions.find(kWordForWord); at != std::string::npos) {
      answer.text = asked.instructions.substr(at + kWordForWord.size());
    } else if (!asked.outputs.empty()) {
      answer.text = "It is " + asked.outputs.begin()->get<std::string>() + ".";
    } else if (++turns_ == 1) {
      answer.samples = asked.heard;  // says it back
      answer.text = "You said that.";
    } else if (turns_ == 2) {
      answer = {.calls = {{"room_rate", R"({"room":"single"})"}}};
    } else if (turns_ == 3) {
      answer.text.clear();
      for (int i = 0; i < 6; ++i) {
        answer.samples.insert(answer.samples.end(), speech_.begin(), speech_.end());
        answer.text += "one two three four ";
      }
    } else if (turns_ == 5) {
      answer.hangs_up = true;
    }
    return answer;
  }
  // The next answer never comes.
  void StandStill() {
    MutexLock lock(&mutex_);
    stands_still_ = true;
  }
  std::vector<RealtimeProvider::Asked> asked() const {
    MutexLock lock(&mutex_);
    return asked_;
  }

 private:
  const std::vector<int16_t> speech_;
  mutable Mutex mutex_;
  std::vector<RealtimeProvider::Asked> asked_ ABSL_GUARDED_BY(mutex_);
  int turns_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stands_still_ ABSL_GUARDED_BY(mutex_) = false;
};

class RealtimeCallTest : public ::testing::Test {
 protected:
  void SetUp() override {
    PARLEY_ASSERT_OK_AND_ASSIGN(speech_, audio::ReadSpeech(kClip, kRateHz));
    script_ = std::make_shared<Script>(speech_);
    provider_ = std::make_unique<RealtimeProvider>(
        [script = script_](const RealtimeProvider::Asked& asked) { return (*script)(asked); });
    ClusterOptions options;
    options.services = {"agent-registry", "dispatch-broker", "room-server",
                        "llm-gateway",    "tts-gateway",     "api-server"};
    options.extra_arguments["llm-gateway"] = {"--llm-openai-base-url", provider_->url()};
    options.extra_arguments["api-server"] = {"--demo"};
    options.extra_arguments["agent-registry"] = {"--tools-allow-loopback"};
    options.agent_arguments = {"--tools-allow-loopback"};
    setenv("OPENAI_API_KEY", "secret-key", 1);
    PARLEY_ASSERT_OK_AND_ASSIGN(cluster_, Cluster::Start(options));
    unsetenv("OPENAI_API_KEY");
    api_ = std::make_unique<Api>(*cluster_);
  }

  void Register(const std::string& more) {
    const std::string definition = fmt::format(R"(
id: echo
realtime: {{engine: openai-realtime, model: model-1, voice: marin}}
instructions: Say it back.
greeting: Good day.
tools:
  - name: room_rate
    parameters: {{type: object, properties: {{room: {{type: string}}}}, required: [room]}}
    http: {{url: "{}/demo/room-rate/{{room}}"}}
{})",
                                               api_->base(), more);
    PARLEY_ASSERT_OK(api_->Register(definition));
  }
  // Says the clip; the agent's next transcript.
  absl::StatusOr<caller::Transcript> Ask(caller::Caller& caller) {
    const int64_t asked_us = caller.NowMicros();
    PARLEY_RETURN_IF_ERROR(caller.Play(speech_, kRateHz));
    return caller.WaitForTranscript(/*of_agent=*/true, asked_us, kLong);
  }
  // The agent has that in its words, since then.
  static absl::Status Says(caller::Caller& caller, const std::string& words, int64_t since_us) {
    const auto says = [&words](const caller::CallEvent& event) {
      return event.agent && event.text.find(words) != std::string::npos;
    };
    return caller.WaitFor(words, says, kLong, since_us).status();
  }
  void Settle(caller::Caller& caller) {
    PARLEY_ASSERT_OK(caller.WaitForAgentState("listening", kLong));
  }

  std::vector<int16_t> speech_;
  std::shared_ptr<Script> script_;
  std::unique_ptr<RealtimeProvider> provider_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Api> api_;
};

TEST_F(RealtimeCallTest, ATalkWithEverythingInIt) {
  Register("");
  PARLEY_ASSERT_OK_AND_ASSIGN(auto caller, api_->Call("echo"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const caller::Transcript greeting,
                              caller->WaitForTranscript(true, 0, kLong));
  EXPECT_EQ(greeting.text, "Good day.");
  Settle(*caller);

  // The model hears the caller: it says back what it heard, and the caller hears that.
  PARLEY_ASSERT_OK_AND_ASSIGN(const caller::Transcript back, Ask(*caller));
  EXPECT_EQ(back.text, "You said that.");
  const int64_t heard_us = back.last_at_us - back.first_at_us;
  EXPECT_GT(heard_us, 300'000) << "its words come in step with its audio";
  PARLEY_ASSERT_OK_AND_ASSIGN(const caller::Transcript own,
                              caller->WaitForTranscript(false, 0, kLong));
  EXPECT_EQ(own.text, "what was said");
  EXPECT_EQ(own.identity, caller->identity());
  const auto asked = script_->asked();
  ASSERT_GE(asked.size(), 2u);
  // The clip is 1.4 s; silence around it comes too.
  EXPECT_THAT(asked[1].heard.size(), AllOf(Ge(kRateHz * 1.0), Le(kRateHz * 3.0)));
  Settle(*caller);

  // A tool of the definition, run by the agent server.
  PARLEY_ASSERT_OK_AND_ASSIGN(const caller::Transcript rate, Ask(*caller));
  EXPECT_THAT(rate.text, HasSubstr("80"));
  Settle(*caller);

  // Interrupted: the model is told how much of it was heard.
  const int64_t long_us = caller->NowMicros();
  PARLEY_ASSERT_OK(caller->Play(speech_, kRateHz));
  PARLEY_ASSERT_OK(caller->WaitPlayed(kLong).status());
  PARLEY_ASSERT_OK_AND_ASSIGN(const int64_t begun_us,
                              caller->WaitForAgentAudio(caller->NowMicros(), kLong));
  ASSERT_TRUE(Eventually([&] { return caller->NowMicros() > begun_us + 1'500'000; }, kLong));
  PARLEY_ASSERT_OK(Ask(*caller).status());
  ASSERT_TRUE(Eventually([&] { return !provider_->received("conversation.item.truncate").empty(); },
                         kLong));
  const auto cut = provider_->received("conversation.item.truncate").front();
  EXPECT_THAT(cut["audio_end_ms"].get<int>(), AllOf(Ge(1200), Le(3500)));
  EXPECT_GT(caller->NowMicros(), long_us);
  PARLEY_ASSERT_OK(
      caller->WaitForAgentSilence(caller->NowMicros() - 100'000, absl::Milliseconds(500), kLong)
          .status());
  EXPECT_THAT(provider_->violations(), IsEmpty());
  EXPECT_EQ(provider_->sessions(), 1);

  // The provider breaks off: another session knows what was said, and the call goes on.
  Settle(*caller);
  const int64_t lost_us = caller->NowMicros();
  PARLEY_ASSERT_OK(caller->Play(speech_, kRateHz));
  ASSERT_TRUE(Eventually([&] { return provider_->sessions() == 2; }, kLong));
  PARLEY_ASSERT_OK(Says(*caller, "sorry", lost_us));
  EXPECT_GE(provider_->received("conversation.item.create").size(), 6u);
  EXPECT_THAT(provider_->violations(), IsEmpty());
  caller->HangUp();
}

TEST_F(RealtimeCallTest, TheModelsOwnDetectionTakesTheTurns) {
  // Longer than the clip's pause between its two words.
  Register("turn_detection: {mode: realtime, endpointing: {min_delay: 800ms}}\n");
  PARLEY_ASSERT_OK_AND_ASSIGN(auto caller, api_->Call("echo"));
  PARLEY_ASSERT_OK(caller->WaitForTranscript(true, 0, kLong).status());
  Settle(*caller);
  PARLEY_ASSERT_OK_AND_ASSIGN(const caller::Transcript back, Ask(*caller));
  EXPECT_EQ(back.text, "You said that.");
  EXPECT_THAT(provider_->received("input_audio_buffer.commit"), IsEmpty());
  Settle(*caller);

  // It stands still: another voice asks for a moment, and who asks again is answered.
  script_->StandStill();
  const int64_t asked_us = caller->NowMicros();
  PARLEY_ASSERT_OK(caller->Play(speech_, kRateHz));
  PARLEY_ASSERT_OK(Says(*caller, "moment", asked_us));
  PARLEY_ASSERT_OK(caller->WaitForAgentAudio(asked_us, kLong).status());
  Settle(*caller);
  PARLEY_ASSERT_OK(caller->Play(speech_, kRateHz));
  PARLEY_ASSERT_OK(Says(*caller, "80", asked_us));
  EXPECT_THAT(provider_->violations(), IsEmpty());
  caller->HangUp();
}

}  // namespace
}  // namespace parley::testing
