#pragma once
// The agent server's part, played by a test: a job process at the other end of a socket, with a
// scripted room and scripted engines.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "agent/agent.h"
#include "agent/job/frame.h"
#include "agent/job/run_job.h"
#include "audio/opus.h"
#include "audio/pcm.h"
#include "base/clock.h"
#include "parley/job/v1/job.pb.h"

namespace parley::agent {

class JobPeer {
 public:
  using FromJob = parley::job::v1::FromJob;
  using ToJob = parley::job::v1::ToJob;

  explicit JobPeer(const AgentOptions& options) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) abort();
    pid_ = fork();
    if (pid_ == 0) {
      close(pair[0]);
      _exit(RunJob(pair[1], options));
    }
    close(pair[1]);
    fd_ = pair[0];
  }
  ~JobPeer() {
    close(fd_);
    if (exited_) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  JobPeer(const JobPeer&) = delete;
  JobPeer& operator=(const JobPeer&) = delete;

  // The script.
  std::deque<std::string> finals;
  std::deque<parley::llm::v1::ChatResponse> answers;  // each followed by done
  std::string tool_output = "90";
  int64_t word_samples = 4'800;  // of synthesised speech, at 24 kHz
  bool fail_join = false;

  // What has come.
  std::vector<FromJob> messages;
  std::string stt_audio;
  int finals_asked = 0;
  // Of a model that hears and speaks; `on_realtime` answers.
  std::vector<parley::job::v1::RealtimeCommand> realtime;
  std::string realtime_audio;
  std::function<void(const parley::job::v1::RealtimeCommand&)> on_realtime;
  std::vector<std::string> states;
  std::string user_said;   // final transcripts, as shown
  std::string agent_said;  // as shown
  std::vector<int64_t> frames_us;
  std::vector<uint32_t> frame_timestamps;
  std::vector<int16_t> heard;  // the agent's voice, 16 kHz
  std::vector<uint32_t> background_timestamps;
  std::vector<int16_t> background;  // of its own track, 16 kHz
  std::vector<parley::llm::v1::ChatRequest> chats;
  std::vector<std::string> checkpoints;
  std::vector<parley::job::v1::TurnReport> turns;

  void Send(ToJob message) {
    message.set_seq(++seq_);
    message.set_time_us(Clock::Real().MonotonicMicros());
    std::string frame;
    AppendFrame(message.SerializeAsString(), frame);
    SendBytes(frame);
  }
  void SendBytes(const std::string& bytes) {
    // A job that is gone is found out by reading.
    (void)!send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  void Assign(const std::string& definition_json = "", const std::string& checkpoint = "") {
    ToJob message;
    auto& assignment = *message.mutable_assignment();
    auto& job = *assignment.mutable_job();
    job.set_job_id("AJ_1");
    job.set_fencing_token(1);
    job.set_attempt(checkpoint.empty() ? 1 : 2);
    job.set_resuming(!checkpoint.empty());
    job.set_checkpoint(checkpoint);
    job.set_project("default");
    job.set_agent_name("echo");
    job.set_room("lobby");
    job.set_session_id("AS_1");
    assignment.set_definition_json(definition_json);
    assignment.set_identity("agent-AJ_1");
    assignment.mutable_context()->set_project("default");
    assignment.mutable_context()->set_session_id("AS_1");
    Send(message);
  }
  void Shutdown(parley::job::v1::Shutdown::Why why, int grace_ms = 2'000) {
    ToJob message;
    message.mutable_shutdown()->set_why(why);
    message.mutable_shutdown()->set_grace_ms(grace_ms);
    Send(message);
  }
  void RoomEvent(const parley::room::v1::RoomEvent& event) {
    ToJob message;
    *message.mutable_room_event() = event;
    Send(message);
  }
  void Chat(const std::string& text) {
    parley::room::v1::RoomEvent event;
    event.mutable_text()->set_stream_id(std::to_string(seq_));
    event.mutable_text()->set_topic("lk.chat");
    event.mutable_text()->set_from_identity("ann");
    event.mutable_text()->set_text(text);
    event.mutable_text()->set_final(true);
    RoomEvent(event);
  }
  void PersonLeaves(parley::room::v1::DisconnectReason reason) {
    parley::room::v1::RoomEvent event;
    event.mutable_participant_left()->set_identity("ann");
    event.mutable_participant_left()->set_reason(reason);
    RoomEvent(event);
  }

  // Handles what comes until `done` or the timeout; says whether it was done.
  bool Until(const std::function<bool()>& done, int timeout_ms = 30'000) {
    const int64_t end_us = Clock::Real().MonotonicMicros() + int64_t{timeout_ms} * 1000;
    while (!done()) {
      const int64_t left_us = end_us - Clock::Real().MonotonicMicros();
      if (left_us <= 0 || closed_) return done();
      pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
      poll(&wait, 1, static_cast<int>(std::min<int64_t>(left_us / 1000 + 1, 20)));
      if ((wait.revents & (POLLIN | POLLHUP)) != 0) Read();
    }
    return true;
  }
  bool UntilHas(FromJob::MessageCase which) {
    return Until([&] { return Find(which) != nullptr; });
  }
  const FromJob* Find(FromJob::MessageCase which) const {
    for (const FromJob& message : messages) {
      if (message.message_case() == which) return &message;
    }
    return nullptr;
  }
  // Plays a recording (48 kHz) into the room in real time, answering what comes meanwhile.
  void Speak(const std::vector<int16_t>& samples, uint32_t track = 7) {
    auto encoder = audio::OpusEncoder::Create({.complexity = 0});
    std::vector<uint8_t> packet(audio::OpusEncoder::kMaxPacketBytes);
    int64_t due_us = Clock::Real().MonotonicMicros();
    for (size_t at = 0; at + audio::kRoomFrameSamples <= samples.size();
         at += audio::kRoomFrameSamples) {
      const auto bytes =
          encoder->Encode(std::span(samples).subspan(at, audio::kRoomFrameSamples), packet);
      ToJob message;
      message.mutable_audio()->set_track_number(track);
      message.mutable_audio()->set_codec(parley::room::v1::CODEC_OPUS);
      message.mutable_audio()->set_timestamp(timestamp_ += 960);
      message.mutable_audio()->set_data(packet.data(), *bytes);
      Send(message);
      due_us += 20'000;
      Until([&] { return Clock::Real().MonotonicMicros() >= due_us; });
    }
  }
  // The recogniser in use says that speech begins or is over.
  void Activity(bool begins) {
    ToJob message;
    message.mutable_stt()->set_stream(stt_stream_);
    message.mutable_stt()->mutable_response()->mutable_activity()->set_kind(
        begins ? parley::speech::v1::Activity::KIND_SPEECH_STARTED
               : parley::speech::v1::Activity::KIND_SPEECH_ENDED);
    Send(message);
  }
  // Waits for the process: its exit code, or -1 - signal.
  int Exit(int timeout_ms = 30'000) {
    Until([this] { return closed_; }, timeout_ms);
    int status = 0;
    for (int i = 0; i < timeout_ms / 10; ++i) {
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        exited_ = true;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1 - WTERMSIG(status);
      }
      usleep(10'000);
    }
    return -1000;
  }
  void Hangup() { shutdown(fd_, SHUT_RDWR); }

 private:
  void Read() {
    char buffer[65536];
    const ssize_t got = recv(fd_, buffer, sizeof(buffer), 0);
    if (got <= 0) {
      closed_ = true;
      return;
    }
    reader_.Append({buffer, static_cast<size_t>(got)});
    while (true) {
      const auto frame = reader_.Next();
      ASSERT_TRUE(frame.ok());
      if (!frame->has_value()) return;
      FromJob message;
      ASSERT_TRUE(message.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size())));
      EXPECT_EQ(message.seq(), ++last_seq_);
      if (!message.has_audio()) messages.push_back(message);
      On(message);
    }
  }

  void On(const FromJob& message) {
    switch (message.message_case()) {
      case FromJob::kJoin:
        return OnJoin();
      case FromJob::kRoomCommand:
        return OnRoomCommand(message.room_command());
      case FromJob::kAudio:
        return OnAudio(message.audio());
      case FromJob::kStt:
        return OnStt(message.stt());
      case FromJob::kLlm:
        return OnLlm(message.llm());
      case FromJob::kTts:
        return OnTts(message.tts());
      case FromJob::kRealtime:
        realtime_audio += message.realtime().request().audio();
        if (message.realtime().request().has_audio()) return;
        realtime.push_back(message.realtime());
        if (on_realtime) on_realtime(message.realtime());
        return;
      case FromJob::kToolCall: {
        if (message.tool_call().cancel()) return;
        ToJob result;
        result.mutable_tool_result()->set_call(message.tool_call().call());
        result.mutable_tool_result()->set_output(tool_output);
        return Send(result);
      }
      case FromJob::kCheckpoint:
        checkpoints.push_back(message.checkpoint().blob());
        return;
      case FromJob::kTurn:
        turns.push_back(message.turn());
        return;
      default:
        return;
    }
  }

  void OnJoin() {
    ToJob message;
    if (fail_join) {
      message.mutable_join_failed()->set_code(7);
      message.mutable_join_failed()->set_reason("STALE_TOKEN");
      message.mutable_join_failed()->set_message("a newer attempt is here");
      return Send(message);
    }
    auto& joined = *message.mutable_joined();
    joined.mutable_room()->set_name("lobby");
    joined.mutable_participant()->set_identity("agent-AJ_1");
    auto& ann = *joined.add_others();
    ann.set_identity("ann");
    ann.set_kind(parley::room::v1::PARTICIPANT_KIND_STANDARD);
    Send(message);
    parley::room::v1::RoomEvent event;
    auto& started = *event.mutable_subscription_started();
    started.set_participant_identity("ann");
    started.mutable_track()->set_sid("TR_ann");
    started.set_track_number(7);
    RoomEvent(event);
  }

  void OnRoomCommand(const parley::room::v1::ParticipantCommand& command) {
    if (command.has_publish()) {
      parley::room::v1::RoomEvent event;
      auto& published = *event.mutable_track_published();
      published.set_participant_identity("agent-AJ_1");
      published.set_cid(command.publish().cid());
      published.mutable_track()->set_sid("TR_agent");
      RoomEvent(event);
      event.mutable_track_subscribed()->set_track_sid("TR_agent");
      RoomEvent(event);
    } else if (command.has_update()) {
      const auto& attributes = command.update().attributes();
      if (const auto state = attributes.find("lk.agent.state"); state != attributes.end()) {
        states.push_back(state->second);
      }
    } else if (command.has_text() && command.text().topic() == "lk.transcription") {
      if (command.text().from_identity() == "agent-AJ_1") {
        agent_said += command.text().text();
        if (command.text().final()) agent_said += "|";
      } else if (command.text().attributes().at("lk.transcription_final") == "true") {
        user_said += command.text().text() + "|";
      }
    }
  }

  void OnAudio(const parley::job::v1::AudioOut& out) {
    const bool voice = out.track_number() == 0;
    if (voice) frames_us.push_back(Clock::Real().MonotonicMicros());
    (voice ? frame_timestamps : background_timestamps).push_back(out.timestamp());
    std::vector<int16_t> samples(audio::OpusDecoder::MaxSamples(16'000));
    const auto count = (voice ? decoder_ : background_decoder_)->Decode(out.data(), samples);
    ASSERT_TRUE(count.ok());
    std::vector<int16_t>& to = voice ? heard : background;
    to.insert(to.end(), samples.begin(), samples.begin() + static_cast<std::ptrdiff_t>(*count));
  }

  void OnStt(const parley::job::v1::SttCommand& command) {
    stt_audio += command.audio();
    stt_stream_ = command.stream();
    if (!command.has_end_utterance()) return;
    ++finals_asked;
    ToJob message;
    message.mutable_stt()->set_stream(command.stream());
    auto& final = *message.mutable_stt()->mutable_response()->mutable_final();
    final.set_utterance(command.end_utterance().utterance());
    if (!finals.empty()) {
      final.set_text(finals.front());
      finals.pop_front();
    }
    Send(message);
  }

  void OnLlm(const parley::job::v1::LlmCommand& command) {
    if (!command.has_chat()) return;
    chats.push_back(command.chat());
    ToJob message;
    message.mutable_llm()->set_stream(command.stream());
    if (!answers.empty()) {
      *message.mutable_llm()->mutable_response() = answers.front();
      answers.pop_front();
      Send(message);
    }
    message.mutable_llm()->mutable_response()->mutable_done()->set_finish_reason("stop");
    Send(message);
  }

  void OnTts(const parley::job::v1::TtsCommand& command) {
    if (command.has_open()) {
      EXPECT_EQ(command.open().sample_rate_hz(), 24'000);
    }
    if (!command.text().empty()) text_ = command.text();
    if (!command.has_flush()) return;
    ToJob message;
    message.mutable_tts()->set_stream(command.stream());
    auto& audio = *message.mutable_tts()->mutable_response()->mutable_audio();
    audio.set_segment(command.flush().segment());
    std::vector<int16_t> samples;
    for (size_t at = 0; at < text_.size();) {
      const size_t end = std::min(text_.find(' ', at), text_.size());
      auto& word = *audio.add_words();
      word.set_word(text_.substr(at, end - at));
      word.set_start_ms(static_cast<int32_t>(samples.size() / 24));
      for (int64_t i = 0; i < word_samples; ++i) {
        samples.push_back(static_cast<int16_t>((i / 40 % 2 == 0 ? 1 : -1) * 6'000));
      }
      word.set_end_ms(static_cast<int32_t>(samples.size() / 24));
      at = end + 1;
    }
    audio.set_data(std::string(audio::AsBytes(samples)));
    Send(message);
    message.mutable_tts()->mutable_response()->mutable_done()->set_segment(
        command.flush().segment());
    Send(message);
  }

  pid_t pid_ = -1;
  int fd_ = -1;
  bool closed_ = false;
  bool exited_ = false;
  uint64_t seq_ = 0;
  uint64_t last_seq_ = 0;
  uint32_t stt_stream_ = 0;
  uint32_t timestamp_ = 0;
  std::string text_;
  FrameReader reader_;
  absl::StatusOr<audio::OpusDecoder> decoder_ = audio::OpusDecoder::Create(16'000);
  absl::StatusOr<audio::OpusDecoder> background_decoder_ = audio::OpusDecoder::Create(16'000);
};

}  // namespace parley::agent
