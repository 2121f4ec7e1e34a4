// What a program's own agent sees of a conversation, and what it can do: hooks and speech handles,
// in a job process.
#include <absl/time/clock.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "agent/task.h"
#include "agent/tool.h"
#include "base/status.h"
#include "job_peer.h"
#include "session/recording.h"

namespace parley::agent {
namespace {

namespace dispatchv1 = parley::dispatch::v1;
namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;
using FromJob = jobv1::FromJob;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kLongText[] = "one two three four five six seven eight nine ten";

parley::llm::v1::ChatResponse Text(const std::string& text) {
  parley::llm::v1::ChatResponse response;
  response.mutable_text()->set_text(text);
  return response;
}

SessionConfig Engines(std::shared_ptr<Agent> agent) {
  SessionConfig config;
  config.agent = std::move(agent);
  config.stt = {{.engine = "scripted"}};
  config.llm = {{.engine = "scripted"}};
  config.tts = {{.engine = "scripted"}};
  return config;
}

// A program whose agent is made in the job's process.
AgentOptions ProgramOf(std::function<std::shared_ptr<Agent>(JobContext&)> make,
                       std::function<void(AgentSession&)> then = {}) {
  return {.agent_name = "echo", .entrypoint = [make, then](JobContext& job) -> absl::Status {
            job.AddShutdownHook([&job] { job.log().Info("hook"); });
            PARLEY_ASSIGN_OR_RETURN(AgentSession * session, job.StartSession(Engines(make(job))));
            if (then) then(*session);
            return session->Wait();
          }};
}
AgentOptions ProgramWith(std::function<void(JobContext&, AgentSession&)> then) {
  return {.agent_name = "echo", .entrypoint = [then](JobContext& job) -> absl::Status {
            PARLEY_ASSIGN_OR_RETURN(AgentSession * session,
                                    job.StartSession(Engines(std::make_shared<Agent>("Count."))));
            then(job, *session);
            return session->Wait();
          }};
}

std::vector<std::string> Lines(const JobPeer& peer) {
  std::vector<std::string> lines;
  for (const FromJob& message : peer.messages) {
    if (message.has_log()) lines.push_back(message.log().message());
  }
  return lines;
}
bool Logged(const JobPeer& peer, const std::string& line) {
  const auto lines = Lines(peer);
  return std::find(lines.begin(), lines.end(), line) != lines.end();
}
long Count(const JobPeer& peer, const std::string& line) {  // NOLINT: as std::count
  const auto lines = Lines(peer);
  return std::count(lines.begin(), lines.end(), line);
}
bool UntilLogged(JobPeer& peer, const std::string& line) {
  return peer.Until([&] { return Logged(peer, line); });
}
bool UntilListening(JobPeer& peer) {
  return peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; });
}
const jobv1::Ended& EndOf(JobPeer& peer) {
  static const jobv1::Ended kNone;
  return peer.UntilHas(FromJob::kEnded) ? peer.Find(FromJob::kEnded)->ended() : kNone;
}

class Hotel : public Agent {
 public:
  explicit Hotel(JobContext& job) : Agent("You are the front desk."), job_(job) {
    AddTool({.name = "rate", .description = "What it costs", .run = [this](std::string_view) {
               ++asked_;
               return absl::StatusOr<std::string>(std::to_string(89 + asked_));
             }});
  }
  void OnEnter(AgentSession& session) override {
    const SpeechHandle greeting = session.Say("Good day.");
    greeting.Wait();
    job_.log().Info("greeted: " + greeting.heard());
  }
  void OnExit(AgentSession&) override { job_.log().Info("exit"); }
  void OnUserTurnCompleted(AgentSession& session, UserTurn& turn) override {
    if (turn.text == "mumble") turn.answer = false;
    if (turn.text == "throw") throw std::runtime_error("no");
    if (turn.text == "how much") {
      turn.text = "how much is a single";
      turn.instructions = "A single is 90 euros.";
    }
    if (turn.text == "hand me over") {
      session.Say("One moment.").Wait();
      turn.answer = false;
    }
  }

 private:
  JobContext& job_;
  int asked_ = 0;
};

AgentOptions HotelProgram() {
  return ProgramOf([](JobContext& job) { return std::make_shared<Hotel>(job); });
}

TEST(AgentTest, EntersAnswersAndLeaves) {
  JobPeer peer(HotelProgram());
  peer.answers = {Text("Ninety.")};
  peer.Assign();
  ASSERT_TRUE(UntilLogged(peer, "greeted: Good day.")) << peer.agent_said;
  peer.Chat("how much");
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  ASSERT_EQ(peer.chats.size(), 1U);
  const parley::llm::v1::ChatRequest& chat = peer.chats[0];
  EXPECT_EQ(chat.items(0).message().text(), "You are the front desk.");
  EXPECT_EQ(chat.items(2).message().text(), "how much is a single");
  EXPECT_EQ(chat.items(chat.items_size() - 1).message().text(), "A single is 90 euros.");
  EXPECT_EQ(chat.tools(0).name(), "rate");

  peer.PersonLeaves(roomv1::DISCONNECT_REASON_CLIENT_INITIATED);
  EXPECT_EQ(EndOf(peer).reason(), dispatchv1::JOB_REASON_PARTICIPANTS_LEFT);
  EXPECT_THAT(Lines(peer), ElementsAre("greeted: Good day.", "exit", "hook"));
}

TEST(AgentTest, TurnsMayBeRefusedAndHooksMayThrow) {
  JobPeer peer(HotelProgram());
  peer.answers = {Text("Yes."), Text("Bye.")};
  peer.Assign();
  ASSERT_TRUE(UntilLogged(peer, "greeted: Good day."));
  ASSERT_TRUE(UntilListening(peer));
  peer.Chat("mumble");
  ASSERT_TRUE(peer.Until([&] {  // it has thought about it, and is done
    return std::count(peer.states.begin(), peer.states.end(), "thinking") == 1 &&
           peer.states.back() == "listening";
  }));
  peer.Chat("hand me over");
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "Good day.|One moment.|"; }))
      << peer.agent_said << ": a hook may speak and wait for it";
  EXPECT_TRUE(peer.chats.empty());
  ASSERT_TRUE(UntilListening(peer));
  peer.Chat("throw");
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  EXPECT_TRUE(Logged(peer, "a hook of the agent threw"));
  // "mumble" is gone: the model was never told of it.
  ASSERT_EQ(peer.chats.size(), 1U);
  for (const auto& item : peer.chats[0].items()) EXPECT_NE(item.message().text(), "mumble");
}

TEST(AgentTest, ASuccessorIsInAlready) {
  std::string checkpoint;
  {
    JobPeer first(HotelProgram());
    first.answers = {Text("Ninety.")};
    first.Assign();
    ASSERT_TRUE(UntilLogged(first, "greeted: Good day."));
    first.Chat("how much");
    ASSERT_TRUE(first.Until([&] { return !first.turns.empty(); }));
    checkpoint = first.checkpoints.back();
  }
  JobPeer second(HotelProgram());
  second.answers = {Text("Still ninety.")};
  second.Assign("", checkpoint);
  ASSERT_TRUE(UntilListening(second));
  second.Chat("and now");
  ASSERT_TRUE(second.Until([&] { return !second.turns.empty(); }));
  EXPECT_EQ(second.agent_said, "Still ninety.|") << "nobody is greeted twice";
}

TEST(AgentTest, ToolsWork) {
  JobPeer peer(HotelProgram());
  auto& call = *peer.answers.emplace_back().mutable_tool_call();
  call.set_call_id("c1");
  call.set_name("rate");
  call.set_arguments_json("{}");
  peer.answers.push_back(Text("It is ninety."));
  peer.Assign();
  ASSERT_TRUE(UntilLogged(peer, "greeted: Good day."));
  peer.Chat("what is it");
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  ASSERT_EQ(peer.chats.size(), 2U);
  const auto& items = peer.chats[1].items();
  EXPECT_EQ(items[items.size() - 1].tool_result().output(), "90");
}

parley::llm::v1::ChatResponse Call(const std::string& tool, const std::string& arguments = "{}") {
  parley::llm::v1::ChatResponse response;
  response.mutable_tool_call()->set_call_id("call-" + tool);
  response.mutable_tool_call()->set_name(tool);
  response.mutable_tool_call()->set_arguments_json(arguments);
  return response;
}

// Says when it comes and goes.
class Colleague : public Agent {
 public:
  Colleague(JobContext& job, std::string name, std::vector<Tool> tools = {})
      : Agent("You are " + name + ".", std::move(tools)), job_(job), name_(std::move(name)) {}
  void OnEnter(AgentSession& session) override {
    job_.log().Info(name_ + " enters");
    session.Say("This is " + name_ + ".");
  }
  void OnExit(AgentSession&) override { job_.log().Info(name_ + " leaves"); }

 private:
  JobContext& job_;
  const std::string name_;
};

// Greeter → sales or support → technical: by the model, by a tool of the program's, by the program.
TEST(HandoffTest, AgentsOfAProgramFollowEachOther) {
  JobPeer peer(
      {.agent_name = "echo", .entrypoint = [](JobContext& job) -> absl::Status {
         SessionConfig config = Engines(std::make_shared<Colleague>(
             job, "greeter",
             std::vector<Tool>{{.name = "route",
                                .description = "Finds who can help",
                                .run = [](std::string_view) { return std::string("support"); },
                                .handoff = "support"}}));
         config.name = "greeter";
         config.handoffs = {"sales"};
         AgentSession** session = new AgentSession*(nullptr);  // the job's, to its end
         const Tool escalate{
             .name = "escalate",
             .description = "Calls a technician",
             .run = [&job, session](std::string_view) -> absl::StatusOr<std::string> {
               AgentConfig technical;
               technical.name = "technical";
               technical.agent = std::make_shared<Colleague>(job, "technical");
               technical.tts = {{.engine = "scripted", .voice = "deep"}};
               PARLEY_RETURN_IF_ERROR((*session)->UpdateAgent(std::move(technical)));
               return "a technician comes";
             }};
         AgentConfig support{
             .agent = std::make_shared<Colleague>(job, "support", std::vector<Tool>{escalate}),
             .name = "support"};
         AgentConfig sales{.agent = std::make_shared<Colleague>(job, "sales"), .name = "sales"};
         config.agents = {support, sales};
         PARLEY_ASSIGN_OR_RETURN(*session, job.StartSession(std::move(config)));
         return (*session)->Wait();
       }});
  // Who is handed a question answers it; who the program calls in waits.
  peer.answers = {Call("route"), Text("What is wrong?"), Call("escalate"), Text("Somebody comes.")};
  const auto said = [&peer](const std::string& text) {
    return peer.Until([&] { return peer.agent_said.find(text) != std::string::npos; });
  };
  peer.Assign();
  ASSERT_TRUE(said("This is greeter.|"));
  ASSERT_TRUE(UntilListening(peer));
  peer.Chat("it is broken");
  ASSERT_TRUE(said("What is wrong?|") && said("This is support.|")) << peer.agent_said;
  ASSERT_TRUE(UntilListening(peer));
  peer.Chat("it is on fire");
  ASSERT_TRUE(said("Somebody comes.|") && said("This is technical.|")) << peer.agent_said;
  std::string voice;
  for (const FromJob& message : peer.messages) {
    if (message.tts().has_open()) voice = message.tts().open().voices(0).voice();
  }
  EXPECT_EQ(voice, "deep");
  peer.PersonLeaves(roomv1::DISCONNECT_REASON_CLIENT_INITIATED);
  ASSERT_TRUE(peer.UntilHas(FromJob::kEnded));
  std::vector<std::string> lines = Lines(peer);
  std::erase(lines, "the conversation was handed over");
  EXPECT_THAT(lines, ::testing::UnorderedElementsAre("greeter enters", "greeter leaves",
                                                     "support enters", "support leaves",
                                                     "technical enters", "technical leaves"));
  EXPECT_EQ(lines.back(), "technical leaves");
}

struct Address {
  std::string street;
  int64_t number = 0;
  static void Describe(ToolFields<Address>& fields) {
    fields.Add("street", &Address::street, "The street");
    fields.Add("number", &Address::number, "The number");
  }
};

class AskAddress : public AgentTask<Address> {
 public:
  AskAddress() : AgentTask("Ask for the address.") {
    AddTool(MakeTool<Address>("address", "The user named it",
                              [this](const Address& given) -> absl::StatusOr<std::string> {
                                Complete(given);
                                return "noted";
                              }));
  }
  void OnEnter(AgentSession& session) override { session.Say("Where do you live?"); }
};

class Taxi : public Agent {
 public:
  explicit Taxi(JobContext& job) : Agent("You order taxis."), job_(job) {
    AddTool({.name = "order", .description = "Orders one", .run = [this](std::string_view) {
               return Order();
             }});
  }
  void OnEnter(AgentSession& session) override {
    session_ = &session;
    job_.log().Info("taxi enters");
  }
  void OnExit(AgentSession&) override { job_.log().Info("taxi leaves"); }

 private:
  absl::StatusOr<std::string> Order() {
    PARLEY_ASSIGN_OR_RETURN(const Address address,
                            RunTask(*session_, std::make_shared<AskAddress>()));
    return fmt::format("to {} {}", address.street, address.number);
  }
  JobContext& job_;
  AgentSession* session_ = nullptr;
};

TEST(TaskTest, AToolAsksForWhatItNeeds) {
  JobPeer peer(ProgramOf([](JobContext& job) { return std::make_shared<Taxi>(job); }));
  peer.answers = {Call("order"), Call("address", R"({"street": "Main", "number": "x"})"),
                  Call("address", R"({"street": "Main Street", "number": 7})"), Text("Noted."),
                  Text("It comes.")};
  peer.Assign();
  ASSERT_TRUE(UntilLogged(peer, "taxi enters"));
  ASSERT_TRUE(UntilListening(peer));
  peer.Chat("a taxi please");
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "Where do you live?|"; }))
      << peer.agent_said;
  ASSERT_TRUE(UntilListening(peer));
  peer.Chat("main street seven");
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "Where do you live?|Noted.|It comes.|"; }))
      << peer.agent_said;
  // What does not fit the type never came to the task; its result did come to the tool.
  ASSERT_EQ(peer.chats.size(), 5U);
  const auto& retry = peer.chats[2].items();
  EXPECT_TRUE(retry[retry.size() - 1].tool_result().is_error());
  const auto& last = peer.chats[4].items();
  EXPECT_EQ(last[last.size() - 1].tool_result().output(), "to Main Street 7");
  EXPECT_EQ(peer.chats[3].items(0).message().text(), "Ask for the address.");
  EXPECT_EQ(peer.chats[4].items(0).message().text(), "You order taxis.");
  EXPECT_FALSE(Logged(peer, "taxi leaves")) << "who waits for a task has not left";
}

// Nobody waits for a task for ever: not when the session ends, and not when time is over.
TEST(TaskTest, EndsWithTheSession) {
  JobPeer peer(
      {.agent_name = "echo", .entrypoint = [](JobContext& job) -> absl::Status {
         PARLEY_ASSIGN_OR_RETURN(AgentSession * session,
                                 job.StartSession(Engines(std::make_shared<Agent>("Wait."))));
         auto late = RunTask(*session, std::make_shared<AskAddress>(), {}, absl::Milliseconds(100));
         job.log().Info(std::string(Message(late.status())));
         auto left = RunTask(*session, std::make_shared<AskAddress>());
         job.log().Info(absl::IsCancelled(left.status()) ? "cancelled" : "not cancelled");
         return session->Wait();
       }});
  peer.Assign();
  ASSERT_TRUE(UntilLogged(peer, "the task took too long"));
  ASSERT_TRUE(peer.Until([&] { return Count(peer, "a task begins") == 2; })) << peer.agent_said;
  peer.PersonLeaves(roomv1::DISCONNECT_REASON_CLIENT_INITIATED);
  ASSERT_TRUE(UntilLogged(peer, "cancelled"));
  EXPECT_EQ(peer.Exit(), 0);
}

// A configured agent whose definition asks for it gives its server both kinds of recording.
TEST(RecordingTest, OfAConfiguredAgent) {
  JobPeer peer({.agent_name = "echo", .entrypoint = RunConfiguredAgent});
  peer.Assign(R"({"id": "desk", "greeting": "one two three",
      "stt": [{"engine": "scripted"}], "llm": [{"engine": "scripted"}],
      "tts": [{"engine": "scripted", "voice": "one"}],
      "session": {"record": true, "record_sound": true}})");
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "one two three|"; })) << peer.agent_said;
  peer.PersonLeaves(roomv1::DISCONNECT_REASON_CLIENT_INITIATED);
  ASSERT_TRUE(peer.UntilHas(FromJob::kEnded));
  std::string session;
  std::vector<std::string> packets;
  for (const FromJob& message : peer.messages) {
    session += message.recording().session();
    for (const std::string& one : message.recording().sound()) packets.push_back(one);
  }
  const auto replayed = session::Replay(session);
  ASSERT_TRUE(replayed.ok()) << replayed.status();
  EXPECT_TRUE(replayed->complete && replayed->identical);
  // As long as the call, stereo: three words of 200 ms and what was around them.
  EXPECT_GE(packets.size(), 30U);
  const double seconds = static_cast<double>(packets.size()) * 0.02;
  EXPECT_NEAR(seconds, static_cast<double>(replayed->duration_us) / 1e6, 0.5);
  EXPECT_NE(packets[10][0] & 0x04, 0) << "the bit of a stereo packet";
}

TEST(SpeechHandleTest, SaysWhenItIsOver) {
  JobPeer peer(ProgramWith([](JobContext& job, AgentSession& session) {
    const SpeechHandle first = session.Say("One two.");
    const SpeechHandle second = session.GenerateReply("Go on.");
    const bool early = first.done();
    const bool waited = second.Wait(absl::Milliseconds(10));
    second.Wait();
    job.log().Info(early ? "done too early" : "not done at once");
    job.log().Info(waited ? "done too early" : "10 ms are too little");
    job.log().Info(first.heard() + "|" + second.heard());
    job.log().Info(first.interrupted() || second.interrupted() ? "cut" : "whole");
  }));
  peer.answers = {Text("Three four.")};
  peer.Assign();
  ASSERT_TRUE(UntilLogged(peer, "whole"));
  EXPECT_THAT(Lines(peer), ElementsAre("not done at once", "10 ms are too little",
                                       "One two.|Three four.", "whole"));
}

TEST(SpeechHandleTest, CutsItsOwnSpeechAlone) {
  JobPeer peer(ProgramWith([](JobContext& job, AgentSession& session) {
    const SpeechHandle spoken = session.Say(kLongText, {.allow_interruptions = false});
    const SpeechHandle dropped = session.Say("Never said.");
    const SpeechHandle last = session.Say("And this.");
    dropped.Interrupt();
    dropped.Wait();
    job.log().Info(dropped.interrupted() && dropped.heard().empty() ? "dropped" : "heard?");
    job.WaitForShutdown(absl::Milliseconds(700));
    spoken.Interrupt();
    spoken.Wait();
    job.log().Info(spoken.interrupted() && !spoken.heard().empty() ? "cut" : "not cut");
    last.Wait();
    job.log().Info(last.interrupted() ? "cut too" : "said");
  }));
  peer.Assign();
  ASSERT_TRUE(UntilLogged(peer, "said")) << peer.agent_said;
  EXPECT_THAT(Lines(peer), ElementsAre("dropped", "cut", "said"));
  EXPECT_THAT(peer.agent_said, HasSubstr("one two"));
  EXPECT_THAT(peer.agent_said, Not(HasSubstr("ten")));
  EXPECT_THAT(peer.agent_said, Not(HasSubstr("Never")));
  EXPECT_THAT(peer.agent_said, HasSubstr("And this.|"));
}

TEST(SpeechHandleTest, UrgentWordsComeFirst) {
  JobPeer peer(ProgramWith([](JobContext& job, AgentSession& session) {
    session.Say("One two.");
    session.Say("Last.", {.priority = session::Priority::kLow});
    session.Say("Third.");
    session.Say("Second.", {.priority = session::Priority::kHigh});
    job.log().Info("asked");
  }));
  peer.Assign();
  EXPECT_TRUE(peer.Until([&] { return peer.agent_said == "One two.|Second.|Third.|Last.|"; }))
      << peer.agent_said;
}

TEST(SpeechHandleTest, NobodyWaitsForASessionThatIsOver) {
  JobPeer peer(ProgramWith([](JobContext& job, AgentSession& session) {
    const SpeechHandle speech = session.Say(kLongText);
    const SpeechHandle waits = session.Say("Never said.");
    waits.Wait();
    job.log().Info(speech.done() && speech.interrupted() && waits.interrupted() ? "over" : "no");
    const SpeechHandle late = session.Say("Too late.");
    job.log().Info(late.Wait() && late.interrupted() ? "late" : "no");
  }));
  peer.Assign();
  ASSERT_TRUE(peer.Until([&] { return peer.frames_us.size() >= 10; }));
  peer.PersonLeaves(roomv1::DISCONNECT_REASON_CLIENT_INITIATED);
  ASSERT_TRUE(peer.UntilHas(FromJob::kEnded));
  EXPECT_THAT(Lines(peer), Contains("over"));
  EXPECT_THAT(Lines(peer), Contains("late"));
  EXPECT_EQ(peer.Exit(), 0);
}

}  // namespace
}  // namespace parley::agent
