#pragma once
// The job process of the agent server's tests: does what the metadata of its assignment says.
#include <fcntl.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
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
  // A frame each 20 ms until told to go; every one of them comes back once, in order.
  int Talk() {
    jobv1::FromJob message;
    message.mutable_join()->mutable_options()->set_auto_subscribe(true);
    Say(message);
    Next([](const auto& m) { return m.has_joined(); });
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
  static int64_t NowUs() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
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
