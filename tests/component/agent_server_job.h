#pragma once
// The job process of the agent server's tests: does what the metadata of its assignment says.
#include <fcntl.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "agent/job/frame.h"
#include "parley/dispatch/v1/types.pb.h"
#include "parley/job/v1/job.pb.h"

namespace parley::agent::testing_fakes {

namespace dispatchv1 = parley::dispatch::v1;
namespace jobv1 = parley::job::v1;

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
    if (script == "crash at start") std::abort();
    jobv1::FromJob entered;
    entered.mutable_entered();
    Say(entered);
    if (script == "crash") std::abort();
    if (script == "exit") return 3;
    if (script == "hang") Forever();
    if (script == "segfault") *static_cast<volatile int*>(nullptr) = 1;  // NOLINT
    if (script == "spin") {  // on a thread of its own, as tools do; the loop goes on
      std::thread([] {
        for (volatile int i = 0;;) i = i + 1;
      }).detach();
      Next([](const auto&) { return false; });
    }
    if (script == "forks") {
      for (;;) {
        if (fork() == 0) _exit(0);
      }
    }
    if (script == "exec") {
      execl("/bin/true", "true", nullptr);
      return End(strerror(errno));
    }
    if (script == "ptrace") {  // the process whose number stands in an attribute
      const pid_t other = std::atoi(assignment.assignment().attributes().at("pid").c_str());
      return End(ptrace(PTRACE_ATTACH, other, nullptr, nullptr) == 0 ? "traced" : strerror(errno));
    }
    if (script.rfind("read:", 0) == 0) {
      const int fd = open(script.c_str() + 5, O_RDONLY);
      char byte = 0;
      return End(fd >= 0 && read(fd, &byte, 1) >= 0 ? "read" : strerror(errno));
    }
    if (script == "talk") return Talk();
    if (script == "ahead") {
      return Ahead(std::chrono::milliseconds(assignment.assignment().audio_ahead_ms()));
    }
    if (script == "quiet") return Quiet(60, 85);
    if (script == "quiet_over") return Quiet(15, 50);
    if (script == "spoken") return Spoken();
    if (script == "print") std::printf("this is the output of a job\n");
    if (script == "flood") {
      for (int i = 0; i < 20'000; ++i) std::printf("line %d\n", i);
    }
    if (script == "log") {
      jobv1::FromJob message;
      message.mutable_log()->set_level("warn");
      message.mutable_log()->set_message("the guest is in a hurry");
      (*message.mutable_log()->mutable_fields())["floor"] = "3";
      Say(message);
      Next([](const auto& m) { return m.has_shutdown(); });
    }
    if (script == "hoard") {
      std::vector<std::string> hoard;
      for (;;) hoard.emplace_back(16 << 20, 'x');
    }
    if (script == "swell") {
      const std::string much(53 << 20, 'x');
      Next([](const auto& m) { return m.has_shutdown(); });
      return End(std::to_string(much.size()));
    }
    if (script == "socket") return End(socket(AF_INET, SOCK_STREAM, 0) < 0 ? "denied" : "allowed");
    if (script == "identity") return End(assignment.assignment().context().project());
    if (script == "checkpoint") {
      jobv1::FromJob message;
      message.mutable_checkpoint()->set_blob("state");
      Say(message);
    }
    if (script == "record") {
      jobv1::FromJob message;
      message.mutable_recording()->set_session("{\"recording\":2}\n");
      for (int i = 0; i < 120; ++i) message.mutable_recording()->add_sound("\xfc\xff\xfe");
      Say(message);
      Next([](const auto& m) { return m.has_shutdown(); });
    }
    if (script == "mcp") {
      std::string names;
      for (const auto& tool : assignment.assignment().tools()) names += tool.name() + " ";
      jobv1::FromJob message;
      message.mutable_tool_call()->set_call(5);
      message.mutable_tool_call()->set_name("add");
      message.mutable_tool_call()->set_arguments_json(R"({"a": 2, "b": 3})");
      Say(message);
      const auto result = Next([](const auto& m) { return m.has_tool_result(); }).tool_result();
      return End(names + "= " + result.output());
    }
    if (script == "llm") return End(Llm());
    if (script == "stt") return End(Stt());
    if (script == "tts") return End(Tts());
    if (script == "tool") return End(Tool());
    if (script == "room") return Room();
    if (script == "texts") return Texts();
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
  // A frame each 20 ms until told to go; every one of them comes back once, in order.
  int Talk() {
    Join();
    jobv1::FromJob message;
    int sent = 0;
    int heard = 0;
    int wrong = 0;
    bool going = true;
    int64_t next_us = NowUs();
    int64_t until_us = 0;  // for what is still on its way, once told to go
    while (going || (heard < sent && NowUs() < until_us)) {
      const int64_t now = NowUs();
      if (going && now >= next_us) {
        message.Clear();
        message.mutable_audio()->set_data(std::to_string(sent++));
        Say(message);
        next_us += 20'000;
      }
      pollfd watched = {fd_, POLLIN, 0};
      if (poll(&watched, 1, 2) != 1) continue;
      const jobv1::ToJob got = Next([](const auto&) { return true; });
      if (got.has_audio()) wrong += got.audio().data() == std::to_string(heard++) ? 0 : 1;
      if (!got.has_shutdown()) continue;
      going = false;
      until_us = NowUs() + 5'000'000;
    }
    return End("sent " + std::to_string(sent) + " missed " + std::to_string(sent - heard) +
               " wrong " + std::to_string(wrong));
  }
  void Join() {
    jobv1::FromJob message;
    message.mutable_join()->mutable_options()->set_auto_subscribe(true);
    Say(message);
    Next([](const auto& m) { return m.has_joined(); });
  }
  void SayFrame(int number, int64_t due_us, uint32_t level, uint32_t track = 0) {
    jobv1::FromJob message;
    message.mutable_audio()->set_track_number(track);
    message.mutable_audio()->set_data(std::to_string(number));
    message.mutable_audio()->set_due_us(due_us);
    message.mutable_audio()->set_level(level);
    Say(message);
  }
  // Seven frames at once, for the next 120 ms, and then not the last two of them; one more later.
  // Before them seven of another track (21 to 27), which nobody takes back. Each comes in its time.
  int Ahead(std::chrono::milliseconds allowed) {
    if (allowed.count() < 120) return End("only " + std::to_string(allowed.count()) + " ms ahead");
    Join();
    const int64_t start_us = NowUs();
    const auto due_us = [start_us](int i) { return start_us + int64_t{i} * 20'000; };
    for (int i = 0; i < 7; ++i) SayFrame(21 + i, due_us(i), 10, 1);
    for (int i = 0; i < 7; ++i) SayFrame(i, due_us(i), 10);
    jobv1::FromJob cut;
    cut.mutable_audio_cut()->set_after_us(due_us(4));
    Say(cut);
    SayFrame(8, due_us(8), 10);
    std::string heard;
    for (const int i : {21, 0, 22, 1, 23, 2, 24, 3, 25, 4, 26, 27, 8}) {
      const jobv1::ToJob got = Next([](const auto& m) { return m.has_audio(); });
      if (got.audio().data() != std::to_string(i)) return End("heard " + got.audio().data());
      const int64_t time_us = due_us(i > 20 ? i - 21 : i);
      if (NowUs() < time_us - 5'000) heard += "; " + std::to_string(i) + " came early";
    }
    return End("in time" + heard);
  }
  // A second of quiet, then more of it, then something loud; it all comes back. How much together,
  // after the frame `from` and up to `to`: when that is sooner than silence alone says that the
  // utterance is over, the recogniser is told so at the tenth.
  int Quiet(int from, int to) {
    constexpr uint32_t kQuiet = 80;
    constexpr uint32_t kLoud = 30;
    Join();
    constexpr int kFrames = 85;
    int64_t next_us = NowUs();
    int heard = 0;
    int together = 0;  // heard within 10 ms of the one before
    int64_t last_us = 0;
    int64_t loud_us = 0;
    jobv1::FromJob over;
    over.mutable_stt()->mutable_end_utterance()->set_utterance(1);
    for (int sent = 0; heard < kFrames;) {
      if (sent < kFrames && NowUs() >= next_us) {
        const bool loud = sent == 0 || sent == kFrames - 1;
        if (loud) loud_us = NowUs();
        SayFrame(sent++, 0, loud ? kLoud : kQuiet);
        if (sent == 10 && from < 50) Say(over);
        next_us += 20'000;
      }
      pollfd watched = {fd_, POLLIN, 0};
      if (reader_.buffered() == 0 && poll(&watched, 1, 2) != 1) continue;
      const jobv1::ToJob got = Next([](const auto&) { return true; });
      if (!got.has_audio()) continue;
      if (got.audio().data() != std::to_string(heard++)) return End("out of order");
      const int64_t now_us = NowUs();
      if (heard > from && heard <= to && now_us - last_us < 10'000) ++together;
      last_us = now_us;
    }
    return End("together " + std::to_string(together) + " behind " +
               std::to_string((last_us - loud_us) / 1000));
  }
  // Somebody speaks and then sends nothing more, not even silence; it all comes back.
  int Spoken() {
    constexpr int kAtOnce = 10;
    constexpr int kFrames = kAtOnce + 10 + 2;  // fives, and two that nothing follows
    Join();
    int64_t next_us = NowUs();
    int64_t last_us = 0;
    int64_t sent_us = 0;
    int slow = 0;      // of the first ones, which wait for nothing
    int together = 0;  // of the fives
    int heard = 0;
    for (int sent = 0; heard < kFrames;) {
      if (sent < kFrames && NowUs() >= next_us) {
        sent_us = NowUs();
        SayFrame(sent++, 0, 30);
        next_us += 20'000;
      }
      pollfd watched = {fd_, POLLIN, 0};
      if (reader_.buffered() == 0 && poll(&watched, 1, 2) != 1) continue;
      const jobv1::ToJob got = Next([](const auto&) { return true; });
      if (!got.has_audio()) continue;
      if (got.audio().data() != std::to_string(heard++)) return End("out of order");
      const int64_t now_us = NowUs();
      if (heard <= kAtOnce && heard != sent) ++slow;
      if (heard > kAtOnce && heard <= kFrames - 2 && now_us - last_us < 10'000) ++together;
      last_us = now_us;
    }
    return End("slow " + std::to_string(slow) + " together " + std::to_string(together) +
               " behind " + std::to_string((last_us - sent_us) / 1000));
  }
  static int64_t NowUs() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
  }
  // Forty texts in one go.
  int Texts() {
    Join();
    std::string bytes;
    for (int i = 0; i < 40; ++i) {
      jobv1::FromJob message;
      message.mutable_room_command()->mutable_text()->set_stream_id(std::to_string(i));
      AppendFrame(message.SerializeAsString(), bytes);
    }
    if (write(fd_, bytes.data(), bytes.size()) < 0) _exit(1);
    return End("");
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

}  // namespace parley::agent::testing_fakes
