#include "agent/job/run_job.h"

#include <unistd.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "agent/job/context.h"
#include "agent/job/conversation.h"
#include "agent/job/convert.h"
#include "agent/job/link.h"
#include "agent/job/mailbox.h"
#include "agent/job/room_view.h"
#include "base/clock.h"
#include "base/status.h"
#include "event/loop.h"
#include "session/checkpoint.h"

namespace parley::agent {
namespace {

namespace dispatchv1 = parley::dispatch::v1;
namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;

constexpr absl::Duration kDefaultGrace = absl::Seconds(8);
// Left of the server's grace for the goodbye itself.
constexpr absl::Duration kGraceMargin = absl::Milliseconds(500);
constexpr absl::Duration kFlushTimeout = absl::Seconds(2);
// What people say before the program has begun its session: the last of it, and not for ever.
constexpr absl::Duration kEarlyFor = absl::Seconds(30);
constexpr size_t kMostEarlyFrames = 2'000;  // ten seconds of four people
constexpr size_t kMostEarlyBytes = 2 << 20;

// The entrypoint on its thread, then the hooks. What it needs outlives the loop.
struct UserThread {
  AgentOptions options;
  std::shared_ptr<JobState> state;
  std::shared_ptr<Mailbox> mailbox;
  std::shared_ptr<Context> context;

  absl::Status RunEntrypoint() const {
    try {
      return options.entrypoint(*context);
    } catch (const std::exception& error) {
      return Internal("an exception left the entrypoint: {}", error.what());
    } catch (...) {
      return Internal("an exception left the entrypoint");
    }
  }
  void RunHooks() const {
    std::vector<std::function<void()>> hooks;
    {
      MutexLock lock(&state->mutex);
      hooks.swap(state->hooks);
    }
    for (const auto& hook : hooks) {
      try {
        hook();
      } catch (const std::exception& error) {
        context->log().Error("a shutdown hook threw", {{"error", std::string_view(error.what())}});
      }
    }
  }
};

class Job final : private JobControl {
 public:
  Job(int fd, const AgentOptions& options)
      : options_(options),
        mailbox_(std::make_shared<Mailbox>(&loop_)),
        link_(loop_, fd,
              {.on_message = [this](const jobv1::ToJob& message) { OnMessage(message); },
               .on_closed = [this](const std::string& error) { OnLinkClosed(error); }}),
        grace_(loop_) {}

  int Run() {
    jobv1::FromJob hello;
    hello.mutable_hello()->set_protocol(1);
    hello.mutable_hello()->set_pid(getpid());
    hello.mutable_hello()->set_warm(true);
    link_.Send(hello);
    loop_.Run();
    mailbox_->Close();
    return exit_code_;
  }

 private:
  void OnMessage(const jobv1::ToJob& message);
  void OnAssignment(const jobv1::Assignment& assignment);
  void OnJoined(const roomv1::Joined& joined);
  void OnJoinFailed(const jobv1::JoinFailed& failed);
  void OnRoomEvent(const jobv1::ToJob& message);
  void KeepEarly(const jobv1::ToJob& message, int64_t now_us);
  void ForgetEarly();
  void OnShutdown(const jobv1::Shutdown& shutdown);
  void OnHandOver(const jobv1::HandOver& hand_over);
  void OnLinkClosed(const std::string& error);
  void OnEntrypointDone(bool failed, const std::string& error);
  void OnConversationEnded(session::EndReason reason, const std::string& error);

  // JobControl
  void EnterRoom(Subscribe subscribe) override;
  void SaveState(std::string state) override;
  void SetAttributes(std::map<std::string, std::string> attributes) override;
  void SendData(std::string payload, std::string topic, bool reliable,
                std::vector<std::string> destinations) override;
  void SendDtmf(char key, std::vector<std::string> destinations) override;
  void PerformRpc(std::string identity, std::string method, std::string payload,
                  absl::Duration timeout, RpcCalls::Done done) override;
  void RegisterRpc(std::string method, JobContext::RpcHandler handler) override;
  void StartConversation(SessionConfig config, HooksByName hooks) override;
  void AddAgent(AgentConfig agent, std::shared_ptr<AgentHooks> hooks,
                session::SwitchKind how) override;
  void ToConversation(session::Event event) override;
  void SayAudio(std::vector<int16_t> samples, session::event::Say say) override;
  void RequestShutdown(std::string reason) override;
  void DefinitionFailed(std::string error) override;
  void Log(log::Level level, std::string message,
           std::map<std::string, std::string> fields) override;

  void End(dispatchv1::JobReason reason, const std::string& error,
           absl::Duration grace = kDefaultGrace);
  void Finish();
  void ShareParticipants();
  RpcCalls& Rpc();

  const AgentOptions& options_;
  event::Loop loop_;
  const std::shared_ptr<JobState> state_ = std::make_shared<JobState>();
  const std::shared_ptr<Mailbox> mailbox_;
  JobLink link_;
  event::Timer grace_;
  RoomView room_;
  std::optional<jobv1::Assignment> assignment_;
  std::shared_ptr<UserThread> user_;
  std::unique_ptr<RpcCalls> rpc_;
  uint64_t clips_ = 0;  // of the program's own audio
  std::unique_ptr<Conversation> conversation_;
  std::optional<std::string> saved_state_;  // before there was a conversation
  std::deque<jobv1::ToJob> early_;          // audio, likewise
  size_t early_bytes_ = 0;
  int64_t joined_us_ = 0;  // 0: not yet
  std::optional<jobv1::Ended> ended_;
  bool user_done_ = false;
  bool quiet_ = false;  // replaced: say nothing more
  bool finished_ = false;
  int exit_code_ = 1;
};

// ---- from the server ----

void Job::OnMessage(const jobv1::ToJob& message) {
  if (finished_) return;
  const int64_t read_us = loop_.NowMicros();
  const int64_t now_us = message.time_us() > 0 ? std::min(message.time_us(), read_us) : read_us;
  switch (message.message_case()) {
    case jobv1::ToJob::kAssignment:
      return OnAssignment(message.assignment());
    case jobv1::ToJob::kShutdown:
      return OnShutdown(message.shutdown());
    case jobv1::ToJob::kHandOver:
      return OnHandOver(message.hand_over());
    case jobv1::ToJob::kFreeze:
      if (conversation_ == nullptr) return;
      return message.freeze().on() ? conversation_->Pause() : conversation_->Resume();
    case jobv1::ToJob::kPing: {
      jobv1::FromJob pong;
      pong.mutable_pong()->set_id(message.ping().id());
      return link_.Send(pong);
    }
    case jobv1::ToJob::kJoined:
      return OnJoined(message.joined());
    case jobv1::ToJob::kJoinFailed:
      return OnJoinFailed(message.join_failed());
    case jobv1::ToJob::kRoomEvent:
      OnRoomEvent(message);
      break;
    default:
      break;
  }
  if (conversation_ != nullptr) return conversation_->OnMessage(message, now_us);
  if (message.has_audio()) KeepEarly(message, now_us);
}

void Job::KeepEarly(const jobv1::ToJob& message, int64_t now_us) {
  if (now_us - joined_us_ > absl::ToInt64Microseconds(kEarlyFor)) return ForgetEarly();
  early_bytes_ += message.audio().data().size();
  early_.push_back(message);
  while (early_.size() > kMostEarlyFrames || early_bytes_ > kMostEarlyBytes) {
    early_bytes_ -= early_.front().audio().data().size();
    early_.pop_front();
  }
}

void Job::ForgetEarly() {
  if (early_.empty()) return;
  std::deque<jobv1::ToJob>().swap(early_);
  early_bytes_ = 0;
}

void Job::OnAssignment(const jobv1::Assignment& assignment) {
  if (assignment_) return;
  assignment_ = assignment;
  user_ = std::make_shared<UserThread>();
  user_->options = options_;
  user_->state = state_;
  user_->mailbox = mailbox_;
  std::string restored;
  if (assignment.job().resuming()) {
    if (auto checkpoint = session::ParseCheckpoint(assignment.job().checkpoint()); checkpoint.ok())
      restored = std::move(checkpoint->user_data);
  }
  user_->context = std::make_shared<Context>(InfoOf(assignment), std::move(restored), state_,
                                             mailbox_, static_cast<JobControl&>(*this));
  // Not joined: at the end the process leaves it behind, whatever it is doing.
  std::thread([user = user_, this] {
    const int64_t entered_us = Clock::Real().MonotonicMicros();
    user->mailbox->Post([this, entered_us] {
      jobv1::FromJob message;
      message.mutable_entered()->set_entered_us(entered_us);
      link_.Send(message);
    });
    const absl::Status status = user->RunEntrypoint();
    user->mailbox->Post([this, failed = !status.ok(), error = std::string(Message(status))] {
      OnEntrypointDone(failed, error);
    });
    user->context->WaitForShutdown(absl::InfiniteDuration());
    user->RunHooks();
    user->mailbox->Post([this] {
      user_done_ = true;
      if (ended_) Finish();
    });
  }).detach();
}

void Job::OnJoined(const roomv1::Joined& joined) {
  joined_us_ = loop_.NowMicros();
  room_.OnJoined(joined);
  ShareParticipants();
  MutexLock lock(&state_->mutex);
  state_->room = JobState::Room::kInside;
  state_->changed.SignalAll();
}

void Job::OnJoinFailed(const jobv1::JoinFailed& failed) {
  const std::string text =
      failed.reason().empty() ? failed.message() : failed.reason() + ": " + failed.message();
  MutexLock lock(&state_->mutex);
  state_->room = JobState::Room::kOutside;
  state_->room_error =
      absl::Status(static_cast<absl::StatusCode>(failed.code()), "cannot enter the room: " + text);
  if (state_->room_error.ok()) state_->room_error = Unavailable("cannot enter the room: {}", text);
  state_->changed.SignalAll();
}

void Job::OnRoomEvent(const jobv1::ToJob& message) {
  const roomv1::RoomEvent& event = message.room_event();
  room_.OnEvent(event);
  switch (event.event_case()) {
    case roomv1::RoomEvent::kParticipantJoined:
    case roomv1::RoomEvent::kParticipantUpdated:
    case roomv1::RoomEvent::kParticipantLeft:
      return ShareParticipants();
    case roomv1::RoomEvent::kDisconnected: {
      if (conversation_ != nullptr) return;  // it hears of it too, and ends the job
      std::string error;
      const session::EndReason reason = EndOf(event.disconnected(), error);
      return OnConversationEnded(reason, error);
    }
    case roomv1::RoomEvent::kRpc:
      return Rpc().OnPacket(event.rpc());
    default:
      return;
  }
}

void Job::OnShutdown(const jobv1::Shutdown& shutdown) {
  const session::EndReason reason = EndOf(shutdown.why());
  if (conversation_ != nullptr) conversation_->Resume();  // its end must be seen
  absl::Duration grace = kDefaultGrace;
  if (shutdown.grace_ms() > 0) {
    grace = std::max(absl::Milliseconds(shutdown.grace_ms()) - kGraceMargin,
                     absl::Milliseconds(shutdown.grace_ms()) / 2);
  }
  if (reason == session::EndReason::kReplaced) quiet_ = true;
  if (ended_) {
    grace_.StartOnce(grace, [this] { Finish(); });
    return;
  }
  // First the job's own end, so that the conversation's adds no other.
  End(ReasonOf(reason), shutdown.message(), grace);
  ToConversation(session::event::Shutdown{reason, shutdown.message()});
  if (!assignment_ || quiet_) Finish();
}

void Job::OnHandOver(const jobv1::HandOver& hand_over) {
  if (hand_over.cancel()) {
    if (conversation_ != nullptr) conversation_->Resume();
    return;
  }
  if (ended_ || !assignment_) return;
  const auto paused = [this](std::string checkpoint) {
    jobv1::FromJob message;
    message.mutable_handed_over()->set_checkpoint(std::move(checkpoint));
    link_.Send(message);
  };
  // Without a session there is nothing to pause; what the program saved last stands.
  if (conversation_ == nullptr) return paused("");
  conversation_->HandOver(absl::Milliseconds(hand_over.wait_ms()), paused);
}

void Job::OnLinkClosed(const std::string& error) {
  if (finished_) return;
  // Without its server a job can do nothing, and nobody is there to hear why.
  if (!error.empty())
    fprintf(stderr, "job: the channel to the agent server broke: %s\n", error.c_str());
  finished_ = true;
  exit_code_ = quiet_ ? 0 : 1;
  loop_.Stop();
}

// ---- from the entrypoint and the conversation ----

void Job::OnEntrypointDone(bool failed, const std::string& error) {
  if (failed) return End(dispatchv1::JOB_REASON_ENTRYPOINT_ERROR, error);
  // Outside of its room nothing could ever end it.
  if (!room_.joined() && conversation_ == nullptr) End(dispatchv1::JOB_REASON_SHUTDOWN, "");
}

void Job::OnConversationEnded(session::EndReason reason, const std::string& error) {
  if (reason == session::EndReason::kReplaced) quiet_ = true;
  state_->SessionOver(reason == session::EndReason::kError ? Unavailable("{}", error)
                                                           : absl::OkStatus());
  End(ReasonOf(reason), error);
  if (quiet_) Finish();
}

void Job::SaveState(std::string state) {
  if (conversation_ != nullptr) {
    return ToConversation(session::event::SetUserData{std::move(state)});
  }
  saved_state_ = state;  // the conversation's checkpoints are to hold it too
  jobv1::FromJob message;
  message.mutable_checkpoint()->set_blob(
      session::FormatCheckpoint({.user_data = std::move(state)}));
  link_.Send(message);
}

void Job::EnterRoom(Subscribe subscribe) {
  jobv1::FromJob message;
  roomv1::JoinOptions& options = *message.mutable_join()->mutable_options();
  options.set_auto_subscribe(subscribe == Subscribe::kAudio);
  (*options.mutable_attributes())["lk.agent.state"] = "initializing";
  for (const auto& [key, value] : assignment_->attributes())
    (*options.mutable_attributes())[key] = value;
  options.set_metadata(assignment_->metadata());
  link_.Send(message);
}

void Job::SetAttributes(std::map<std::string, std::string> attributes) {
  jobv1::FromJob message;
  auto& out = *message.mutable_room_command()->mutable_update()->mutable_attributes();
  out.insert(attributes.begin(), attributes.end());
  link_.Send(message);
}

void Job::SendData(std::string payload, std::string topic, bool reliable,
                   std::vector<std::string> destinations) {
  jobv1::FromJob message;
  roomv1::DataPacket& packet = *message.mutable_room_command()->mutable_data();
  packet.set_payload(std::move(payload));
  packet.set_topic(std::move(topic));
  packet.set_reliable(reliable);
  for (std::string& one : destinations) packet.add_destination_identities(std::move(one));
  link_.Send(message);
}

void Job::SendDtmf(char key, std::vector<std::string> destinations) {
  jobv1::FromJob message;
  roomv1::DataPacket& packet = *message.mutable_room_command()->mutable_data();
  packet.set_topic(kDtmfTopic);
  packet.set_payload(std::string(1, key));
  packet.set_reliable(true);
  for (std::string& one : destinations) packet.add_destination_identities(std::move(one));
  link_.Send(message);
}

// Its requests are told from those of an attempt before this one.
RpcCalls& Job::Rpc() {
  if (rpc_ == nullptr) {
    const dispatchv1::Assignment& job = assignment_->job();
    rpc_ = std::make_unique<RpcCalls>(
        loop_, mailbox_, job.job_id() + "_" + std::to_string(job.fencing_token()) + "_",
        [this](const roomv1::RpcPacket& packet) {
          jobv1::FromJob message;
          *message.mutable_room_command()->mutable_rpc() = packet;
          link_.Send(message);
        });
  }
  return *rpc_;
}

void Job::PerformRpc(std::string identity, std::string method, std::string payload,
                     absl::Duration timeout, RpcCalls::Done done) {
  Rpc().Perform(std::move(identity), std::move(method), std::move(payload), timeout,
                std::move(done));
}

void Job::RegisterRpc(std::string method, JobContext::RpcHandler handler) {
  Rpc().Register(std::move(method), std::move(handler));
}

void Job::StartConversation(SessionConfig config, HooksByName hooks) {
  if (ended_) return;
  auto made = Conversation::Create(
      loop_, mailbox_,
      {.send = [this](jobv1::FromJob& message) { link_.Send(message); },
       .send_fresh = [this](jobv1::FromJob& message, bool more) { link_.SendFresh(message, more); },
       .speech_done =
           [this](const session::command::SpeechDone& done) { state_->SpeechDone(done); },
       .present =
           [this](std::vector<std::shared_ptr<AgentHooks>> present) {
             MutexLock lock(&state_->mutex);
             state_->present = std::move(present);
           },
       .ended = [this](session::EndReason reason,
                       const std::string& error) { OnConversationEnded(reason, error); }},
      room_, *assignment_, std::move(config), std::move(hooks));
  {
    MutexLock lock(&state_->mutex);
    state_->session_made = true;
    state_->session_error = Detached(made.status());
    state_->changed.SignalAll();
  }
  if (!made.ok()) return;
  conversation_ = *std::move(made);
  conversation_->Start();
  for (const jobv1::ToJob& message : early_) {
    conversation_->OnMessage(message, loop_.NowMicros());
  }
  ForgetEarly();
  if (saved_state_) ToConversation(session::event::SetUserData{*std::move(saved_state_)});
}

void Job::AddAgent(AgentConfig agent, std::shared_ptr<AgentHooks> hooks, session::SwitchKind how) {
  // Whoever waits for it is not to wait for ever.
  if (conversation_ == nullptr || ended_) {
    if (hooks != nullptr) hooks->SessionOver();
    return;
  }
  conversation_->AddAgent(std::move(agent), std::move(hooks), how);
}

void Job::SayAudio(std::vector<int16_t> samples, session::event::Say say) {
  if (conversation_ == nullptr) return;
  say.clip = ++clips_;
  conversation_->AddClip(say.clip, std::move(samples));
  conversation_->Handle(std::move(say));
}

void Job::ToConversation(session::Event event) {
  if (conversation_ != nullptr) conversation_->Handle(std::move(event));
}

void Job::RequestShutdown(std::string reason) {
  if (conversation_ != nullptr) {
    return ToConversation(
        session::event::Shutdown{session::EndReason::kShutdown, std::move(reason)});
  }
  End(dispatchv1::JOB_REASON_SHUTDOWN, reason);
}

void Job::DefinitionFailed(std::string error) {
  End(dispatchv1::JOB_REASON_DEFINITION_INVALID, error);
}

void Job::Log(log::Level level, std::string message, std::map<std::string, std::string> fields) {
  static constexpr const char* kLevels[] = {"debug", "info", "warn", "error"};
  jobv1::FromJob line;
  line.mutable_log()->set_level(kLevels[static_cast<int>(level)]);
  line.mutable_log()->set_message(std::move(message));
  line.mutable_log()->mutable_fields()->insert(fields.begin(), fields.end());
  link_.Send(line);
}

// ---- the end ----

void Job::End(dispatchv1::JobReason reason, const std::string& error, absl::Duration grace) {
  if (ended_) return;
  ended_.emplace();
  ended_->set_reason(reason);
  ended_->set_error(error);
  {
    MutexLock lock(&state_->mutex);
    state_->stopping = true;
    state_->changed.SignalAll();
  }
  if (user_ == nullptr || user_done_) {
    loop_.Post([this] { Finish(); });
  } else {
    grace_.StartOnce(grace, [this] { Finish(); });
  }
}

void Job::Finish() {
  if (finished_) return;
  ToConversation(session::event::Shutdown{session::EndReason::kTerminated, ""});
  finished_ = true;
  exit_code_ = 0;
  if (!quiet_) {
    if (room_.joined()) {
      jobv1::FromJob leave;
      leave.mutable_room_command()->mutable_leave()->set_reason(
          roomv1::DISCONNECT_REASON_CLIENT_INITIATED);
      link_.Send(leave);
    }
    jobv1::FromJob message;
    *message.mutable_ended() = *ended_;
    if (conversation_ != nullptr)
      *message.mutable_ended()->mutable_session() = conversation_->Report();
    link_.Send(message);
    link_.Flush(kFlushTimeout);
  }
  loop_.Stop();
}

void Job::ShareParticipants() {
  MutexLock lock(&state_->mutex);
  state_->participants = room_.participants();
  state_->changed.SignalAll();
}

}  // namespace

int RunJob(int socket_fd, const AgentOptions& options) { return Job(socket_fd, options).Run(); }

}  // namespace parley::agent
