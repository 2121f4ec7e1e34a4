#pragma once
// The job process of the agent server's tests: does what the metadata of its assignment says.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
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

}  // namespace parley::agent::testing_fakes
