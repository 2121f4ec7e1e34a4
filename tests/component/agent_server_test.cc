// The agent server with real processes against a broker, rooms and gateways made up by the test.
// The program under test is this one, run again with kProgramFlag: split, zygote, jobs and all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "agent/job/frame.h"
#include "agent/server/serve.h"
#include "agent_server_fakes.h"
#include "base/clock.h"
#include "base/status.h"
#include "parley/job/v1/job.pb.h"

namespace parley::agent {
namespace {

using ::testing::HasSubstr;
using namespace testing_fakes;  // NOLINT: the test's own
namespace jobv1 = parley::job::v1;
using dispatchv1::ReportedJob;
using dispatchv1::Word;
using dispatchv1::WordVerdict;

constexpr char kProgramFlag[] = "--agent-server-under-test";

int64_t NowMs() { return Clock::Real().MonotonicMicros() / 1000; }

// ---- the job: does what its metadata says ----

class TestJob {
 public:
  explicit TestJob(int fd) : fd_(fd) {}

  int Run() {
    jobv1::FromJob hello;
    hello.mutable_hello()->set_protocol(1);
    Say(hello);
    const jobv1::ToJob assignment = Next([](const auto& m) { return m.has_assignment(); });
    const std::string script = assignment.assignment().job().metadata();
    if (script == "never") Forever();
    jobv1::FromJob entered;
    entered.mutable_entered();
    Say(entered);
    if (script == "crash") std::abort();
    if (script == "exit") return 3;
    if (script == "hang") Forever();
    if (script == "print") std::printf("this is the output of a job\n");
    if (script == "hoard") {
      std::vector<std::string> hoard;
      for (;;) hoard.emplace_back(16 << 20, 'x');
    }
    if (script == "socket") return End(socket(AF_INET, SOCK_STREAM, 0) < 0 ? "denied" : "allowed");
    if (script == "identity") return End(assignment.assignment().context().project());
    if (script == "checkpoint") {
      jobv1::FromJob message;
      message.mutable_checkpoint()->set_blob("state");
      Say(message);
    }
    if (script == "llm") return End(Llm());
    if (script == "stt") return End(Stt());
    if (script == "tts") return End(Tts());
    if (script == "tool") return End(Tool());
    if (script == "room") return Room();
    if (script == "run") {
      const jobv1::ToJob told = Next([](const auto& m) { return m.has_shutdown(); });
      return End("", told.shutdown().why() == jobv1::Shutdown::TERMINATED
                         ? dispatchv1::JOB_REASON_TERMINATED
                         : dispatchv1::JOB_REASON_SHUTDOWN);
    }
    if (script == "stubborn") Next([](const auto&) { return false; });
    return End("");
  }

 private:
  void Say(const jobv1::FromJob& message) {
    std::string bytes;
    AppendFrame(message.SerializeAsString(), bytes);
    if (write(fd_, bytes.data(), bytes.size()) < 0) _exit(1);
  }
  [[noreturn]] static void Forever() {
    for (;;) pause();
  }
  int End(const std::string& text, dispatchv1::JobReason reason = dispatchv1::JOB_REASON_SHUTDOWN) {
    jobv1::FromJob message;
    message.mutable_ended()->set_reason(reason);
    message.mutable_ended()->set_error(text);
    Say(message);
    return 0;
  }
  // The next message that matches; answers pings meanwhile.
  jobv1::ToJob Next(const std::function<bool(const jobv1::ToJob&)>& match) {
    for (;;) {
      auto frame = reader_.Next();
      if (!frame.ok()) _exit(1);
      if (!frame->has_value()) {
        char buffer[65536];
        const ssize_t got = read(fd_, buffer, sizeof(buffer));
        if (got <= 0) _exit(1);
        reader_.Append({buffer, static_cast<size_t>(got)});
        continue;
      }
      jobv1::ToJob message;
      message.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size()));
      if (message.seq() != ++seq_) _exit(2);
      if (message.has_ping()) {
        jobv1::FromJob pong;
        pong.mutable_pong()->set_id(message.ping().id());
        Say(pong);
      }
      if (match(message)) return message;
    }
  }
  std::string Llm() {
    jobv1::FromJob message;
    message.mutable_llm()->set_stream(1);
    message.mutable_llm()->mutable_chat()->mutable_context()->set_project("somebody else's");
    message.mutable_llm()->mutable_chat()->add_models()->set_engine("rules");
    Say(message);
    std::string text;
    for (;;) {
      const auto event = Next([](const auto& m) { return m.has_llm(); }).llm();
      if (event.has_failed()) return "failed: " + event.failed().message();
      if (event.response().has_done()) break;
      text += event.response().text().text();
    }
    // A second one that fails.
    message.Clear();
    message.mutable_llm()->set_stream(2);
    message.mutable_llm()->mutable_chat();
    Say(message);
    const auto failed = Next([](const auto& m) { return m.has_llm(); }).llm();
    return text + ", " + failed.failed().message();
  }
  std::string Stt() {
    jobv1::FromJob message;
    message.mutable_stt()->set_stream(7);
    message.mutable_stt()->mutable_open()->set_sample_rate_hz(16000);
    Say(message);
    message.mutable_stt()->set_audio(std::string(640, 'a'));
    Say(message);
    Say(message);
    message.mutable_stt()->mutable_end_utterance()->set_utterance(1);
    Say(message);
    const auto heard = Next([](const auto& m) { return m.stt().has_response(); }).stt();
    message.mutable_stt()->mutable_close();
    Say(message);
    Next([](const auto& m) { return m.stt().has_closed(); });
    return heard.response().final().text();
  }
  std::string Tts() {
    jobv1::FromJob message;
    message.mutable_tts()->set_stream(1);
    message.mutable_tts()->mutable_open();
    Say(message);
    message.mutable_tts()->set_text("hello");
    Say(message);
    message.mutable_tts()->mutable_finish();
    Say(message);
    const auto audio = Next([](const auto& m) { return m.tts().has_response(); }).tts();
    Next([](const auto& m) { return m.tts().has_closed(); });
    return audio.response().audio().data();
  }
  std::string Tool() {
    jobv1::FromJob message;
    message.mutable_tool_call()->set_call(5);
    message.mutable_tool_call()->set_name("room_rate");
    message.mutable_tool_call()->set_arguments_json(R"({"room": "single"})");
    Say(message);
    const auto result = Next([](const auto& m) { return m.has_tool_result(); }).tool_result();
    return (result.is_error() ? "error: " : "") + result.output();
  }
  // In, say something, have it back; then until told to go.
  int Room() {
    jobv1::FromJob message;
    message.mutable_join()->mutable_options()->set_auto_subscribe(true);
    Say(message);
    const auto in = Next([](const auto& m) { return m.has_joined() || m.has_join_failed(); });
    if (in.has_join_failed()) return End("join failed: " + in.join_failed().message());
    message.Clear();
    message.mutable_room_command()->mutable_publish()->set_cid("voice");
    Say(message);
    message.Clear();
    message.mutable_audio()->set_data("opus");
    message.mutable_audio()->set_track_number(0);
    Say(message);
    const auto audio = Next([](const auto& m) { return m.has_audio(); }).audio();
    message.Clear();
    message.mutable_checkpoint()->set_blob("heard");
    Say(message);
    const auto told =
        Next([](const auto& m) { return m.has_shutdown() || m.room_event().has_disconnected(); });
    return End(audio.data() + (told.has_shutdown() ? "" : " and then disconnected"));
  }

  const int fd_;
  FrameReader reader_;
  uint64_t seq_ = 0;
};

// main() of the program under test.
int Program(int argc, char** argv) {
  int exit_code = 0;
  if (HandledDeathReport(argc, argv, &exit_code)) return exit_code;
  supervise::ZygoteOptions options;
  options.run_job = [](int fd) { return TestJob(fd).Run(); };
  auto zygote = supervise::Split(std::move(options));
  if (!zygote.ok()) return 1;
  service::BlockSignals();
  AgentServerConfig config;
  config.agent_names = {"tester"};
  config.health_port = 0;
  config::Table table("test", "test");
  config.Bind(table);
  const auto outcome = table.Parse(argc - 1, argv + 1);
  if (!outcome.status.ok()) return service::FailStart("test", outcome.status);
  auto context = service::Context::Create("agent-server", config.common);
  if (!context.ok()) return service::FailStart("test", context.status());
  service::WatchSignals(**context);
  return ServeAgents(**zygote, config, **context);
}

// ---- the test's side ----

std::vector<pid_t> ChildrenOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
  std::vector<pid_t> children;
  for (pid_t child = 0; file >> child;) children.push_back(child);
  return children;
}

std::string NameOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

// CPU time of a process so far, in milliseconds.
int64_t CpuMs(pid_t pid) {
  int64_t nanos = 0;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    int64_t own = 0;
    std::ifstream(task.path() / "schedstat") >> own;
    nanos += own;
  }
  return nanos / 1'000'000;
}

int64_t PssKib(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string word; file >> word;) {
    if (word != "Pss:") continue;
    int64_t kib = 0;
    file >> kib;
    return kib;
  }
  return 0;
}

class AgentServerTest : public ::testing::Test {
 protected:
  void StartProgram(std::vector<std::string> flags = {}, int slots = 8) {
    std::vector<std::string> all = {
        "/proc/self/exe", kProgramFlag,       "--dev", "--log-level",
        "warn",           "--load-threshold", "1",     "--job-ping-interval",
        "100ms"};
    for (const char* name : {"dispatch", "rooms", "stt", "tts", "llm"}) {
      all.push_back("--" + std::string(name) + "-address");
      all.push_back(cluster_.address);
    }
    all.insert(all.end(), {"--slots", std::to_string(slots)});
    all.insert(all.end(), flags.begin(), flags.end());
    std::vector<char*> argv;
    for (std::string& argument : all) argv.push_back(argument.data());
    argv.push_back(nullptr);
    started_ms_ = NowMs();
    ASSERT_EQ(posix_spawn(&zygote_, "/proc/self/exe", nullptr, nullptr, argv.data(), environ), 0);
    registered_ = cluster_.broker.registers.Await([](const auto&) { return true; });
    registered_ms_ = NowMs();
    ASSERT_TRUE(registered_.has_value());
  }
  void TearDown() override {
    if (zygote_ == 0) return;
    kill(zygote_, SIGKILL);  // the server follows
    Reap();
  }
  int Stop() {
    kill(zygote_, SIGTERM);
    return Reap();
  }
  int Reap() {
    int status = 0;
    waitpid(zygote_, &status, 0);
    zygote_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  pid_t ServerPid() {
    for (pid_t child : ChildrenOf(zygote_)) {
      if (NameOf(child) != "parley-job") return child;
    }
    return 0;
  }
  std::vector<pid_t> JobPids() {
    std::vector<pid_t> jobs;
    for (pid_t child : ChildrenOf(zygote_)) {
      if (NameOf(child) == "parley-job") jobs.push_back(child);
    }
    return jobs;
  }
  FakeBroker& broker() { return cluster_.broker; }
  // Runs a job to its end; its last word.
  Word RunJob(const std::string& script, const std::string& definition = "") {
    const std::string id = "AJ_" + script + std::to_string(++token_);
    broker().Go(id, token_, script, definition);
    auto word = broker().AwaitWord(id, Word::ENDED);
    EXPECT_TRUE(word.has_value()) << script;
    return word.value_or(Word());
  }

  FakeCluster cluster_;
  pid_t zygote_ = 0;
  int64_t started_ms_ = 0;
  int64_t registered_ms_ = 0;
  std::optional<dispatchv1::Register> registered_;
  uint64_t token_ = 100;
};

TEST_F(AgentServerTest, RegistersWhatItServes) {
  StartProgram({"--labels", "zone=a", "--worker-region", "north", "--deployment", "blue"});
  std::printf("start to registered: %ld ms\n", static_cast<long>(registered_ms_ - started_ms_));
  EXPECT_THAT(registered_->worker_id(), HasSubstr("AW_"));
  EXPECT_GE(registered_->instance().size(), 32U);
  EXPECT_EQ(registered_->connect_seq(), 1U);
  EXPECT_EQ(registered_->pool(), "tester");
  EXPECT_EQ(registered_->slots(), 8);
  EXPECT_EQ(registered_->labels().at("zone"), "a");
  EXPECT_EQ(registered_->region(), "north");
  EXPECT_EQ(registered_->deployment(), "blue");
  EXPECT_TRUE(registered_->accepts_all());
  const auto beat = broker().heartbeats.Await([](const auto&) { return true; });
  ASSERT_TRUE(beat.has_value());
  EXPECT_TRUE(beat->accepting());
}

TEST_F(AgentServerTest, IdleCostsLittle) {
  StartProgram();
  const pid_t server = ServerPid();
  broker().heartbeats.Await([](const auto& beat) { return beat.seq() == 1; });
  const int64_t before = CpuMs(server) + CpuMs(zygote_);
  const int64_t start = NowMs();
  ASSERT_TRUE(broker().heartbeats.Await([](const auto& b) { return b.seq() == 5; }).has_value());
  const double percent = 100.0 * static_cast<double>(CpuMs(server) + CpuMs(zygote_) - before) /
                         static_cast<double>(NowMs() - start);
  int64_t pss = PssKib(server) + PssKib(zygote_);
  for (pid_t job : JobPids()) pss += PssKib(job);
  std::printf("idle: %.2f %% of a core, %.1f MiB (server %.1f, zygote %.1f)\n", percent,
              static_cast<double>(pss) / 1024, static_cast<double>(PssKib(server)) / 1024,
              static_cast<double>(PssKib(zygote_)) / 1024);
  EXPECT_LE(percent, 2.0);  // of a debug build; the benchmarks hold the release build to 0.2
  EXPECT_LE(pss, 60 * 1024);
}

TEST_F(AgentServerTest, RunsJobsAndSaysHowTheyEnd) {
  StartProgram(
      {"--job-start-timeout", "500ms", "--job-hang-timeout", "700ms", "--job-memory", "64MiB"});
  EXPECT_EQ(RunJob("end").reason(), dispatchv1::JOB_REASON_SHUTDOWN);
  const Word crash = RunJob("crash");
  EXPECT_EQ(crash.reason(), dispatchv1::JOB_REASON_PROCESS_CRASHED);
  EXPECT_THAT(crash.error(), HasSubstr("signal 6"));
  const Word exit = RunJob("exit");
  EXPECT_EQ(exit.reason(), dispatchv1::JOB_REASON_PROCESS_CRASHED);
  EXPECT_THAT(exit.error(), HasSubstr("code 3"));
  EXPECT_EQ(RunJob("never").reason(), dispatchv1::JOB_REASON_START_TIMEOUT);
  EXPECT_EQ(RunJob("hang").reason(), dispatchv1::JOB_REASON_HUNG);
  EXPECT_EQ(RunJob("hoard").reason(), dispatchv1::JOB_REASON_OUT_OF_MEMORY);
  EXPECT_EQ(RunJob("identity").error(), "hotel");
  EXPECT_EQ(RunJob("end").reason(), dispatchv1::JOB_REASON_SHUTDOWN);
}

TEST_F(AgentServerTest, StartedComesFirstAndStopEndsIt) {
  StartProgram();
  broker().Go("AJ_1", 7, "run");
  ASSERT_TRUE(broker().AwaitWord("AJ_1", Word::STARTED).has_value());
  dispatchv1::ConnectResponse stop;
  stop.mutable_stop()->set_job_id("AJ_1");
  stop.mutable_stop()->set_fencing_token(7);
  broker().Send(stop);
  const auto ended = broker().AwaitWord("AJ_1", Word::ENDED);
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->fencing_token(), 7U);
  EXPECT_EQ(ended->reason(), dispatchv1::JOB_REASON_TERMINATED);
}

TEST_F(AgentServerTest, StubbornJobIsKilledAfterItsGrace) {
  StartProgram();
  broker().Go("AJ_1", 7, "stubborn");
  ASSERT_TRUE(broker().AwaitWord("AJ_1", Word::STARTED).has_value());
  dispatchv1::ConnectResponse stop;
  stop.mutable_stop()->set_job_id("AJ_1");
  stop.mutable_stop()->set_fencing_token(7);
  stop.mutable_stop()->mutable_grace()->set_nanos(300'000'000);
  broker().Send(stop);
  const auto ended = broker().AwaitWord("AJ_1", Word::ENDED, 3);
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->reason(), dispatchv1::JOB_REASON_TERMINATED);
}

TEST_F(AgentServerTest, DefinitionsLimitOfDurationEndsTheJob) {
  StartProgram({"--job-stop-grace", "300ms"});
  const Word word = RunJob("stubborn", R"({"limits": {"max_duration": "300ms"}})");
  EXPECT_EQ(word.reason(), dispatchv1::JOB_REASON_LIMIT_EXCEEDED);
}

TEST_F(AgentServerTest, RevokedJobIsKilledAndReleased) {
  StartProgram();
  broker().Go("AJ_1", 7, "run");
  ASSERT_TRUE(broker().AwaitWord("AJ_1", Word::STARTED).has_value());
  dispatchv1::ConnectResponse revoke;
  revoke.mutable_revoke()->set_job_id("AJ_1");
  revoke.mutable_revoke()->set_fencing_token(9);  // and all older ones
  broker().Send(revoke);
  const auto released = broker().AwaitWord("AJ_1", Word::RELEASED);
  ASSERT_TRUE(released.has_value());
  EXPECT_EQ(released->fencing_token(), 7U);
}

TEST_F(AgentServerTest, StaleWriterStops) {
  broker().judge = [](const Word& word) {
    WordVerdict verdict;
    if (word.kind() == Word::STARTED) verdict.set_outcome(WordVerdict::STALE);
    return std::optional(verdict);
  };
  StartProgram();
  broker().Go("AJ_1", 7, "run");
  EXPECT_TRUE(broker().AwaitWord("AJ_1", Word::RELEASED).has_value());
}

TEST_F(AgentServerTest, WordsAreSaidUntilAnswered) {
  int asked = 0;
  broker().judge = [&](const Word&) -> std::optional<WordVerdict> {
    if (++asked <= 2) return std::nullopt;
    return WordVerdict();
  };
  StartProgram();
  broker().Go("AJ_1", 7, "end");
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(broker().AwaitWord("AJ_1", Word::ENDED).has_value());
}

TEST_F(AgentServerTest, BrokenStreamEndsNothing) {
  StartProgram();
  broker().Go("AJ_1", 7, "run");
  ASSERT_TRUE(broker().AwaitWord("AJ_1", Word::STARTED).has_value());
  broker().on_register = [](const dispatchv1::Register& request, dispatchv1::Registered& answer) {
    for (const ReportedJob& job : request.report().jobs()) {
      auto* verdict = answer.add_jobs();
      verdict->set_job_id(job.job_id());
      verdict->set_fencing_token(job.fencing_token());
      verdict->set_action(dispatchv1::ResumeVerdict::KEEP);
    }
  };
  const std::vector<pid_t> jobs = JobPids();
  broker().Cut();
  const auto again = broker().registers.Await([](const auto&) { return true; });
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->worker_id(), registered_->worker_id());
  EXPECT_EQ(again->connect_seq(), 2U);
  ASSERT_EQ(again->report().jobs_size(), 1);
  EXPECT_EQ(again->report().jobs(0).status(), ReportedJob::RUNNING);
  EXPECT_EQ(again->report().jobs(0).record().room(), "lobby");
  EXPECT_EQ(JobPids(), jobs);
}

TEST_F(AgentServerTest, SlotsAreNeverExceeded) {
  StartProgram({}, 3);
  for (int i = 1; i <= 4; ++i) broker().Go("AJ_" + std::to_string(i), 10 + i, "run");
  ASSERT_TRUE(broker().AwaitWord("AJ_4", Word::RELEASED).has_value());
  for (int i = 1; i <= 3; ++i) {
    EXPECT_TRUE(broker().AwaitWord("AJ_" + std::to_string(i), Word::STARTED).has_value());
  }
}

TEST_F(AgentServerTest, BurstOfShortJobs) {
  StartProgram({}, 200);
  const int64_t start = NowMs();
  for (int i = 0; i < 200; ++i) broker().Go("AJ_" + std::to_string(i), 1000 + i, "end");
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(broker().AwaitWord("AJ_" + std::to_string(i), Word::ENDED).has_value()) << i;
  }
  std::printf("200 jobs: %ld ms\n", static_cast<long>(NowMs() - start));
  EXPECT_LE(JobPids().size(), 2U + 2U);  // those that wait
}

TEST_F(AgentServerTest, CarriesAudioBothWaysAndLeaves) {
  StartProgram();
  broker().Go("AJ_1", 7, "room");
  const auto open = cluster_.rooms.opens.Await([](const auto&) { return true; });
  ASSERT_TRUE(open.has_value());
  EXPECT_EQ(open->token(), "token-of-AJ_1");
  EXPECT_TRUE(open->options().auto_subscribe());
  EXPECT_TRUE(cluster_.rooms.commands
                  .Await([](const auto& c) { return c.command().publish().cid() == "voice"; })
                  .has_value());
  ASSERT_TRUE(broker().checkpoints.Await([](const auto&) { return true; }).has_value());
  dispatchv1::ConnectResponse stop;
  stop.mutable_stop()->set_job_id("AJ_1");
  stop.mutable_stop()->set_fencing_token(7);
  broker().Send(stop);
  EXPECT_EQ(broker().AwaitWord("AJ_1", Word::ENDED).value_or(Word()).error(), "opus");
  EXPECT_TRUE(cluster_.rooms.commands.Await([](const auto& c) { return c.command().has_leave(); })
                  .has_value());
}

TEST_F(AgentServerTest, FollowsTheRoomElsewhere) {
  FakeCluster other;
  cluster_.rooms.elsewhere = other.address;
  StartProgram();
  broker().Go("AJ_1", 7, "room");
  EXPECT_TRUE(other.rooms.opens.Await([](const auto&) { return true; }).has_value());
}

TEST_F(AgentServerTest, BrokenMediaStreamIsOpenedAgain) {
  StartProgram();
  broker().Go("AJ_1", 7, "room");
  const auto published = [](const auto& c) { return c.command().publish().cid() == "voice"; };
  ASSERT_TRUE(cluster_.rooms.opens.Await([](const auto&) { return true; }).has_value());
  ASSERT_TRUE(cluster_.rooms.commands.Await(published).has_value());
  cluster_.rooms.Cut();
  const auto again = cluster_.rooms.opens.Await([](const auto&) { return true; });
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->token(), "token-of-AJ_1");
  EXPECT_TRUE(cluster_.rooms.commands.Await(published).has_value());  // says it again
  EXPECT_FALSE(broker().AwaitWord("AJ_1", Word::ENDED, 0.3).has_value());
}

TEST_F(AgentServerTest, BridgesGatewaysUnderTheJobsTrueName) {
  StartProgram();
  EXPECT_EQ(RunJob("llm").error(), "good day, no model");
  const auto request = cluster_.llm.requests.Await([](const auto&) { return true; });
  EXPECT_EQ(request->context().project(), "hotel");
  EXPECT_EQ(request->context().agent_id(), "tester");
  EXPECT_EQ(RunJob("stt").error(), "heard 1280");
  EXPECT_EQ(cluster_.stt.configs.Await([](const auto&) { return true; })->context().project(),
            "hotel");
  EXPECT_EQ(RunJob("tts").error(), "audio of hello");
}

TEST_F(AgentServerTest, ToolsOfInsideAddressesAreRefused) {
  StartProgram();
  const Word word =
      RunJob("tool",
             R"({"tools": [{"name": "room_rate", "http": {"url": "http://127.0.0.1:9/{room}"}}]})");
  EXPECT_THAT(word.error(), HasSubstr("error: "));
  EXPECT_THAT(word.error(), HasSubstr("not allowed"));
}

TEST_F(AgentServerTest, ForwardsCheckpoints) {
  StartProgram();
  broker().Go("AJ_1", 7, "checkpoint");
  const auto checkpoint = broker().checkpoints.Await([](const auto&) { return true; });
  ASSERT_TRUE(checkpoint.has_value());
  EXPECT_EQ(checkpoint->job_id(), "AJ_1");
  EXPECT_EQ(checkpoint->fencing_token(), 7U);
  EXPECT_EQ(checkpoint->blob(), "state");
}

TEST_F(AgentServerTest, DrainLetsJobsFinishAndTakesNoMore) {
  StartProgram();
  broker().Go("AJ_1", 7, "run");
  ASSERT_TRUE(broker().AwaitWord("AJ_1", Word::STARTED).has_value());
  const int64_t start = NowMs();
  kill(zygote_, SIGTERM);
  ASSERT_TRUE(broker().drains.Await([](const auto&) { return true; }).has_value());
  EXPECT_LE(NowMs() - start, 500);  // 100 alone
  broker().Go("AJ_2", 8, "run");
  EXPECT_TRUE(broker().AwaitWord("AJ_2", Word::RELEASED).has_value());
  EXPECT_FALSE(broker().AwaitWord("AJ_1", Word::ENDED, 0.3).has_value());
  dispatchv1::ConnectResponse stop;
  stop.mutable_stop()->set_job_id("AJ_1");
  stop.mutable_stop()->set_fencing_token(7);
  broker().Send(stop);
  EXPECT_TRUE(broker().AwaitWord("AJ_1", Word::ENDED).has_value());
  EXPECT_EQ(Reap(), 0);
  const auto gone = broker().deaths.Await([](const auto&) { return true; }, 1);
  ASSERT_TRUE(gone.has_value());  // one orderly leave, no second notice
  EXPECT_EQ(gone->worker_id(), registered_->worker_id());
  EXPECT_FALSE(broker().deaths.Await([](const auto&) { return true; }, 0.2).has_value());
}

TEST_F(AgentServerTest, DrainsDeadlineEndsTheRest) {
  StartProgram({"--drain", "300ms", "--job-stop-grace", "300ms"});
  broker().Go("AJ_1", 7, "run");
  broker().Go("AJ_2", 8, "stubborn");
  ASSERT_TRUE(broker().AwaitWord("AJ_2", Word::STARTED).has_value());
  EXPECT_EQ(Stop(), 0);
  EXPECT_EQ(broker().AwaitWord("AJ_1", Word::ENDED).value_or(Word()).reason(),
            dispatchv1::JOB_REASON_SHUTDOWN);
  EXPECT_EQ(broker().AwaitWord("AJ_2", Word::ENDED).value_or(Word()).reason(),
            dispatchv1::JOB_REASON_DRAIN_DEADLINE);
}

TEST_F(AgentServerTest, SecondSignalExitsAtOnce) {
  StartProgram();
  broker().Go("AJ_1", 7, "stubborn");
  ASSERT_TRUE(broker().AwaitWord("AJ_1", Word::STARTED).has_value());
  kill(zygote_, SIGTERM);
  ASSERT_TRUE(broker().drains.Await([](const auto&) { return true; }).has_value());
  usleep(250'000);  // nearer ones count as one signal
  kill(zygote_, SIGTERM);
  EXPECT_EQ(Reap(), 128 + SIGTERM);
  EXPECT_TRUE(broker().deaths.Await([](const auto&) { return true; }, 5).has_value());
}

TEST_F(AgentServerTest, DeathIsReportedOnceTheJobsAreGone) {
  StartProgram();
  broker().Go("AJ_1", 7, "run");
  ASSERT_TRUE(broker().AwaitWord("AJ_1", Word::STARTED).has_value());
  const std::vector<pid_t> jobs = JobPids();
  ASSERT_FALSE(jobs.empty());
  const pid_t server = ServerPid();
  ASSERT_GT(server, 0);
  const int64_t start = NowMs();
  kill(server, SIGKILL);
  const auto death = broker().deaths.Await([](const auto&) { return true; });
  ASSERT_TRUE(death.has_value());
  std::printf("death to notice: %ld ms\n", static_cast<long>(NowMs() - start));
  EXPECT_EQ(death->worker_id(), registered_->worker_id());
  EXPECT_EQ(death->instance(), registered_->instance());
  EXPECT_EQ(death->connect_seq(), 1U);
  for (pid_t job : jobs) EXPECT_NE(kill(job, 0), 0);
  EXPECT_EQ(Reap(), 128 + SIGKILL);
}

TEST_F(AgentServerTest, ZygotesDeathIsToldByTheServer) {
  StartProgram();
  broker().Go("AJ_1", 7, "run");
  ASSERT_TRUE(broker().AwaitWord("AJ_1", Word::STARTED).has_value());
  kill(zygote_, SIGKILL);
  EXPECT_EQ(Reap(), -SIGKILL);
  EXPECT_TRUE(broker().deaths.Await([](const auto&) { return true; }).has_value());
}

}  // namespace
}  // namespace parley::agent

int main(int argc, char** argv) {
  int exit_code = 0;
  if (parley::agent::HandledDeathReport(argc, argv, &exit_code)) return exit_code;
  if (argc > 1 && std::strcmp(argv[1], parley::agent::kProgramFlag) == 0) {
    return parley::agent::Program(argc, argv);
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
