#pragma once
// A session (libs/session) with its ears, its voice and its engines: turns messages into events and
// commands into messages.
#include <absl/status/statusor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/agent.h"
#include "agent/job/background.h"
#include "agent/job/call_sound.h"
#include "agent/job/hooks.h"
#include "agent/job/lateness.h"
#include "agent/job/listener.h"
#include "agent/job/mailbox.h"
#include "agent/job/playout.h"
#include "agent/job/room_view.h"
#include "agent/job/scribe.h"
#include "event/loop.h"
#include "parley/dispatch/v1/worker.pb.h"
#include "parley/job/v1/job.pb.h"
#include "session/session.h"

namespace parley::agent {

// Loop thread only.
class Conversation {
 public:
  struct Host {
    std::function<void(parley::job::v1::FromJob&)> send;
    // Audio; `more`: the next is about to follow, and may go with it.
    std::function<void(parley::job::v1::FromJob&, bool more)> send_fresh;
    std::function<void(const session::command::SpeechDone&)> speech_done;
    // Agents that are in the conversation now, who has it last; those without hooks are left out.
    std::function<void(std::vector<std::shared_ptr<AgentHooks>>)> present;
    // Once; last of all.
    std::function<void(session::EndReason reason, const std::string& error)> ended;
  };
  // `room` has been entered, and outlives the conversation.
  static absl::StatusOr<std::unique_ptr<Conversation>> Create(
      event::Loop& loop, std::shared_ptr<Mailbox> mailbox, Host host, const RoomView& room,
      const parley::job::v1::Assignment& assignment, SessionConfig config, HooksByName hooks);
  ~Conversation();

  void Start();
  // What came from the server; `now_us` is when. The room's events after the RoomView has seen
  // them.
  void OnMessage(const parley::job::v1::ToJob& message, int64_t now_us);
  // What the program asks for.
  void Handle(session::Event event) { Handle(std::move(event), loop_.NowMicros()); }

  // Neither listens, thinks nor speaks from the next frame on. What comes meanwhile waits its turn,
  // audio is dropped. Idempotent, as Resume().
  void Pause();
  // Goes on, and calls a HandOver() off.
  void Resume();
  // Pauses as soon as nobody speaks or thinks, cutting the agent short after `wait`, and then calls
  // `paused` with the session's checkpoint.
  void HandOver(absl::Duration wait, std::function<void(std::string checkpoint)> paused);

  // Audio at Playout::kRateHz that event::Say names as its clip. The oldest of too many is lost,
  // and its speech is silent.
  void AddClip(uint64_t clip, std::vector<int16_t> samples);

  // One more agent, which goes on. `hooks` may be null.
  void AddAgent(AgentConfig agent, std::shared_ptr<AgentHooks> hooks, session::SwitchKind how);

  // For the job's end report.
  parley::dispatch::v1::SessionReport Report() const;

 private:
  Conversation(event::Loop& loop, std::shared_ptr<Mailbox> mailbox, Host host, const RoomView& room,
               const parley::job::v1::Assignment& assignment, SessionConfig config,
               HooksByName hooks);

  void Handle(session::Event event, int64_t now_us);
  void Drive();
  void Arm();
  void FinishHandOver();
  void OnRoomEvent(const parley::room::v1::RoomEvent& event, int64_t now_us);
  void OnText(const parley::room::v1::TextPacket& packet, int64_t now_us);
  void OnData(const parley::room::v1::DataPacket& packet, int64_t now_us);
  void OnAudio(const parley::job::v1::AudioIn& audio, int64_t now_us);
  void OnOtherAudio(const parley::job::v1::AudioIn& audio);
  void Overhear(const std::string& identity, uint64_t utterance, std::string_view text, bool final);
  void OnStt(const parley::job::v1::SttEvent& event, int64_t now_us);
  void OnLlm(const parley::job::v1::LlmEvent& event, int64_t now_us);
  void OnTts(const parley::job::v1::TtsEvent& event, int64_t now_us);
  void OnTtsAudio(uint32_t stream, const parley::speech::v1::SynthesizedAudio& audio,
                  int64_t now_us);

  // With a model that hears and speaks (conversation_realtime.cc).
  void OnRealtime(const parley::job::v1::RealtimeEvent& event, int64_t now_us);
  void OnRealtime(const parley::llm::v1::RealtimeResponse& response, int64_t now_us);
  void OnRealtimeAudio(const parley::llm::v1::RealtimeAudio& audio, int64_t now_us);
  void OnAside(uint32_t stream, const parley::speech::v1::SynthesizeResponse& response,
               int64_t now_us);
  void OpenRealtime(const session::command::SttOpen& open);
  void SendRealtime(uint32_t stream, parley::llm::v1::RealtimeRequest request);
  bool ServerTurns() const;

  void Do(const session::command::Link& link);
  void Do(const session::command::SttOpen& open);
  void Do(const session::command::SttStart& start);
  void Do(const session::command::SttEnd& end);
  void Do(const session::command::SttForget& forget);
  void Do(const session::command::SttClose& close);
  void Do(const session::command::ReviewTurn& turn);
  void Do(const session::command::LlmChat& chat);
  void Do(const session::command::Respond& respond);
  void Do(const session::command::Truncate& truncate);
  void Do(const session::command::LlmCancel& cancel);
  void Do(const session::command::CallTool& call);
  void Do(const session::command::CancelTool& cancel);
  void Do(const session::command::TtsOpen& open);
  void Do(const session::command::TtsText& text);
  void Do(const session::command::TakeClip& take);
  void Do(const session::command::TtsFinish& finish);
  void Do(const session::command::TtsCancel& cancel);
  void Do(const session::command::PlayStart& start);
  void Do(const session::command::PlayPause& pause);
  void Do(const session::command::PlayResume& resume);
  void Do(const session::command::PlayClear& clear);
  void Do(const session::command::SetState& state);
  void Do(const session::command::SetUserState& state);
  void Do(const session::command::UserText& text);
  void Do(const session::command::AgentText& text);
  void Do(const session::command::ItemAdded& added);
  void Do(const session::command::AgentChanged& changed);
  void Do(const session::command::TurnDone& done);
  void Do(const session::command::SpeechDone& done);
  void Do(const session::command::FalseInterruption& interruption);
  void Do(const session::command::Stalled& stalled);
  void Do(const session::command::SaveCheckpoint& save);
  void Do(const session::command::Log& log);
  void Do(const session::command::End& end);

  // What is kept of the call (keep_recording.cc).
  absl::Status StartRecording();
  void KeepLine(std::string_view line);
  void GiveRecording();
  void FlushRecording();
  std::unique_ptr<audio::Vad> NewVad();
  void EndRecording();

  parley::common::v1::CallContext ContextOf(const std::string& turn_id) const;
  void SendText(const std::string& stream_id, const std::string& segment_id, std::string_view text,
                bool stream_over, bool final, const std::string& identity);
  void SendData(const char* topic, std::string payload);  // to everybody in the room
  absl::Status MakeBackground(absl::Duration ahead);
  void UpdateBackground();
  void Warn(std::string message, std::string detail);

  event::Loop& loop_;
  const std::shared_ptr<Mailbox> mailbox_;
  const Host host_;
  const RoomView& room_;
  const SessionConfig config_;
  HooksByName hooks_;
  std::vector<std::string> present_;  // names: who waits for tasks, and who has the conversation
  const parley::common::v1::CallContext context_;
  const std::string session_id_;
  const std::string participant_identity_;  // the only one to talk with; empty: anybody
  const std::string segment_prefix_;
  // What each agent's engines are asked with; "" is the first.
  struct Voice {
    parley::llm::v1::ChatRequest chat;
    parley::speech::v1::SynthesizeConfig speech;
    std::vector<Tool> tools;
  };
  static Voice VoiceOf(const SessionConfig& config, const AgentConfig& agent);
  static std::map<std::string, Voice> VoicesOf(const SessionConfig& config);
  const Voice& VoiceOf(const std::string& agent) const;
  AgentHooks* HooksOf(const std::string& agent) const;  // null: it has none
  void TellPresent() const;
  std::map<std::string, Voice> voices_;
  parley::job::v1::FromJob recording_;  // waits to be given
  size_t recorded_bytes_ = 0;           // of the session's recording
  std::unique_ptr<CallSound> sound_;    // null: not recorded
  event::Timer recording_timer_;
  std::optional<session::Recorder> recorder_;
  session::Session session_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<Playout> playout_;
  std::unique_ptr<BackgroundPlayer> background_;  // null: there is none
  event::Timer timer_;
  int64_t armed_us_ = std::numeric_limits<int64_t>::max();  // when it rings
  int64_t heard_us_ = 0;  // when the frame that is being heard came
  int64_t late_us_ = 0;   // … and how late that was
  Lateness lateness_;
  std::deque<std::pair<session::Event, int64_t>> events_;
  bool driving_ = false;
  bool ended_ = false;
  bool paused_ = false;
  bool was_playing_ = false;                               // when it was paused
  std::function<void(std::string checkpoint)> hand_over_;  // while one waits for a quiet moment
  event::Timer hand_over_timer_;

  std::string linked_;
  uint32_t stt_stream_ = 0;
  uint32_t tts_stream_ = 0;
  uint32_t response_ = 0;               // of a model that hears and speaks: whose audio is played
  session::event::TtsAudio aside_;      // … what the voice says meanwhile, as far as it is there
  std::vector<int16_t> aside_samples_;  // bounded
  // Who is transcribed beside who is talked to.
  std::map<std::string, std::shared_ptr<Scribe>> scribes_;  // by identity
  uint32_t scribe_streams_ = 0;
  std::vector<int16_t> samples_;
  std::map<uint64_t, std::vector<int16_t>> clips_;
  std::map<std::string, std::string> chats_;  // unfinished texts, by stream id
  uint64_t user_texts_ = 0;
  int tool_calls_ = 0;
  int interruptions_ = 0;
  std::vector<parley::dispatch::v1::TranscriptItem> transcript_;
  parley::job::v1::FromJob audio_out_;  // reused for each frame,
  parley::job::v1::FromJob stt_audio_;  // and this one too
  parley::job::v1::FromJob background_out_;
  std::shared_ptr<Conversation*> self_ = std::make_shared<Conversation*>(this);
};

}  // namespace parley::agent
