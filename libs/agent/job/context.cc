#include "agent/job/context.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "agent/job/convert.h"
#include "agent/job/playout.h"
#include "base/status.h"

namespace parley::agent {
namespace {

constexpr size_t kMaxDataBytes = size_t{64} * 1024;
constexpr size_t kMaxStateBytes = size_t{32} * 1024;
// The server retries redirects and short outages by itself; longer, and something is wrong.
constexpr absl::Duration kEnterTimeout = absl::Seconds(30);
// The caller waits in silence; who needs longer says so in the options.
constexpr absl::Duration kReviewTimeout = absl::Seconds(5);

log::Logger MakeLogger(const std::shared_ptr<Mailbox>& mailbox, JobControl& control) {
  return log::Logger::ToSink(log::Level::kDebug, [mailbox, &control](
                                                     log::Level level, std::string_view message,
                                                     const std::vector<log::Field>& fields) {
    std::map<std::string, std::string> copy;
    for (const log::Field& field : fields) copy[field.key] = field.value;
    mailbox->Post([&control, level, text = std::string(message), copy = std::move(copy)]() mutable {
      control.Log(level, std::move(text), std::move(copy));
    });
  });
}

}  // namespace

Context::Context(JobInfo info, std::string restored_state, std::shared_ptr<JobState> state,
                 std::shared_ptr<Mailbox> mailbox, JobControl& control)
    : info_(std::move(info)),
      restored_state_(std::move(restored_state)),
      state_(std::move(state)),
      mailbox_(std::move(mailbox)),
      control_(control),
      log_(MakeLogger(mailbox_, control_)) {}

absl::Status Context::Connect(Subscribe subscribe) {
  const absl::Time end = absl::Now() + kEnterTimeout;
  MutexLock lock(&state_->mutex);
  if (state_->stopping) return Aborted("the job is ending");
  if (state_->room == JobState::Room::kOutside) {
    state_->room = JobState::Room::kEntering;
    mailbox_->Post([this, subscribe] { control_.EnterRoom(subscribe); });
  }
  while (state_->room == JobState::Room::kEntering && !state_->stopping) {
    const absl::Duration left = end - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return DeadlineExceeded("the room \"{}\" could not be entered within {}", info_.room,
                              absl::FormatDuration(kEnterTimeout));
    }
    state_->changed.WaitFor(&state_->mutex, left);
  }
  if (state_->room == JobState::Room::kInside) return absl::OkStatus();
  return state_->stopping ? Aborted("the job is ending") : Detached(state_->room_error);
}

std::vector<Participant> Context::participants() const {
  MutexLock lock(&state_->mutex);
  return state_->participants;
}

absl::StatusOr<Participant> Context::WaitForParticipant(std::string_view identity,
                                                        absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  PARLEY_RETURN_IF_ERROR(Connect(Subscribe::kAudio));
  MutexLock lock(&state_->mutex);
  while (!state_->stopping) {
    for (const Participant& one : state_->participants) {
      if (identity.empty() ? one.is_person : one.identity == identity) return one;
    }
    const absl::Duration left = end - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return DeadlineExceeded("{} did not come within {}",
                              identity.empty() ? std::string_view("a person") : identity,
                              absl::FormatDuration(timeout));
    }
    state_->changed.WaitFor(&state_->mutex, std::min(left, absl::Hours(1)));
  }
  return Aborted("the job is ending");
}

absl::Status Context::SaveState(std::string state) {
  if (state.size() > kMaxStateBytes) {
    return InvalidArgument("a state of {} bytes; at most {} are kept", state.size(),
                           kMaxStateBytes);
  }
  mailbox_->Post(
      [this, state = std::move(state)]() mutable { control_.SaveState(std::move(state)); });
  return absl::OkStatus();
}

void Context::SetAttributes(std::map<std::string, std::string> attributes) {
  mailbox_->Post([this, attributes = std::move(attributes)]() mutable {
    control_.SetAttributes(std::move(attributes));
  });
}

absl::Status Context::SendData(std::string payload, std::string topic, bool reliable,
                               std::vector<std::string> destinations) {
  if (payload.size() > kMaxDataBytes) {
    return InvalidArgument("a data packet of {} bytes; at most {} are sent", payload.size(),
                           kMaxDataBytes);
  }
  const bool posted = mailbox_->Post([this, payload = std::move(payload), topic = std::move(topic),
                                      reliable, destinations = std::move(destinations)]() mutable {
    control_.SendData(std::move(payload), std::move(topic), reliable, std::move(destinations));
  });
  return posted ? absl::OkStatus()
                : ResourceExhausted("the job is ending, or sends faster than it can");
}

absl::Status Context::SendDtmf(std::string_view keys, std::vector<std::string> destinations) {
  constexpr size_t kMaxKeys = 64;
  if (keys.size() > kMaxKeys || keys.find_first_not_of(session::event::kDtmfKeys) != keys.npos) {
    return InvalidArgument("keys are 0 to 9, *, #, A to D, and {} at most", kMaxKeys);
  }
  for (const char key : keys) {
    if (!mailbox_->Post([this, key, destinations] { control_.SendDtmf(key, destinations); }))
      return ResourceExhausted("the job is ending, or sends faster than it can");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Context::PerformRpc(std::string identity, std::string method,
                                                std::string payload, absl::Duration timeout) {
  if (identity.empty() || method.empty()) return InvalidArgument("name a participant and a method");
  if (payload.size() > kMaxDataBytes) {
    return InvalidArgument("a payload of {} bytes; at most {} are sent", payload.size(),
                           kMaxDataBytes);
  }
  PARLEY_RETURN_IF_ERROR(Connect(Subscribe::kAudio));
  auto answer = std::make_shared<std::optional<absl::StatusOr<std::string>>>();
  const bool posted =
      mailbox_->Post([this, identity = std::move(identity), method = std::move(method),
                      payload = std::move(payload), timeout, answer, state = state_]() mutable {
        control_.PerformRpc(std::move(identity), std::move(method), std::move(payload), timeout,
                            [answer, state](absl::StatusOr<std::string> result) {
                              MutexLock lock(&state->mutex);
                              *answer = std::move(result);
                              state->changed.SignalAll();
                            });
      });
  if (!posted) return Aborted("the job is ending");
  MutexLock lock(&state_->mutex);
  while (!answer->has_value() && !state_->stopping)
    state_->changed.WaitFor(&state_->mutex, absl::Hours(1));
  if (!answer->has_value()) return Aborted("the job is ending");
  return std::move(**answer);
}

void Context::RegisterRpc(std::string method, RpcHandler handler) {
  mailbox_->Post([this, method = std::move(method), handler = std::move(handler)]() mutable {
    control_.RegisterRpc(std::move(method), std::move(handler));
  });
}

absl::StatusOr<AgentSession*> Context::StartSession(SessionConfig config) {
  HooksByName hooks;
  if (config.agent != nullptr) {
    config.instructions = config.agent->instructions();
    config.tools = config.agent->tools();
    hooks[config.name] = HooksOf(config.agent);
  }
  for (AgentConfig& one : config.agents) {
    if (one.agent == nullptr) continue;
    one.instructions = one.agent->instructions();
    one.tools = one.agent->tools();
    hooks[one.name] = HooksOf(one.agent);
  }
  config.options.realtime = config.realtime.has_value() || config.options.realtime;
  if (config.realtime && config.tts.empty()) config.options.hold.clear();
  if (!hooks.empty() && config.options.review_timeout <= absl::ZeroDuration()) {
    config.options.review_timeout = kReviewTimeout;
  }
  PARLEY_RETURN_IF_ERROR(CheckConfig(config));
  {
    MutexLock lock(&state_->mutex);
    if (session_asked_) return FailedPrecondition("this job has a session already; a job has one");
    session_asked_ = true;
  }
  PARLEY_RETURN_IF_ERROR(Connect(Subscribe::kAudio));
  const bool posted =
      mailbox_->Post([this, config = std::move(config), hooks = std::move(hooks)]() mutable {
        control_.StartConversation(std::move(config), std::move(hooks));
      });
  if (!posted) return Aborted("the job is ending");
  MutexLock lock(&state_->mutex);
  while (!state_->session_made && !state_->stopping) state_->changed.Wait(&state_->mutex);
  if (!state_->session_made) return Aborted("the job is ending");
  if (!state_->session_error.ok()) return Detached(state_->session_error);
  // The agents leave before what the program has to clear up.
  state_->hooks.insert(state_->hooks.begin(), [state = state_] {
    std::vector<std::shared_ptr<AgentHooks>> present;
    {
      MutexLock exit_lock(&state->mutex);
      present.swap(state->present);
    }
    for (auto one = present.rbegin(); one != present.rend(); ++one) (*one)->Exit();
  });
  return static_cast<AgentSession*>(this);
}

void Context::Shutdown(std::string_view reason) {
  mailbox_->Post(
      [this, text = std::string(reason)]() mutable { control_.RequestShutdown(std::move(text)); });
}

void Context::FailDefinition(std::string_view error) {
  mailbox_->Post(
      [this, text = std::string(error)]() mutable { control_.DefinitionFailed(std::move(text)); });
}

void Context::AddShutdownHook(std::function<void()> hook) {
  MutexLock lock(&state_->mutex);
  state_->hooks.push_back(std::move(hook));
}

bool Context::stopping() const {
  MutexLock lock(&state_->mutex);
  return state_->stopping;
}

bool Context::WaitForShutdown(absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  MutexLock lock(&state_->mutex);
  while (!state_->stopping) {
    const absl::Duration left = end - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    // An infinite wait overflows the clock below: wait in long pieces.
    state_->changed.WaitFor(&state_->mutex, std::min(left, absl::Hours(1)));
  }
  return true;
}

// ---- the session ----

bool Context::Tell(session::Event event) {
  return mailbox_->Post(
      [this, event = std::move(event)]() mutable { control_.ToConversation(std::move(event)); });
}

SpeechHandle Context::Begin(const std::function<bool(uint64_t handle)>& tell) {
  auto speech = std::make_shared<SpeechHandle::State>();
  speech->job = state_;
  uint64_t handle = 0;
  bool over = false;
  {
    MutexLock lock(&state_->mutex);
    handle = ++state_->speeches;
    over = state_->session_over;
    if (!over) state_->said[handle] = speech;
  }
  speech->interrupt = [self = weak_from_this(), handle] {
    if (const auto alive = self.lock()) alive->Tell(session::event::Interrupt{handle});
  };
  speech->add = [self = weak_from_this(), handle](std::string text, bool last) {
    const auto alive = self.lock();
    if (alive) alive->Tell(session::event::SayMore{handle, std::move(text), last});
  };
  if (over) {
    MutexLock lock(&state_->mutex);
    speech->done = speech->interrupted = true;
  } else if (!tell(handle)) {
    state_->SpeechDone({.handle = handle, .interrupted = true});
  }
  return SpeechHandle(std::move(speech));
}

SpeechHandle Context::Say(std::string text, SpeechOptions options) {
  return Begin([&](uint64_t handle) {
    return Tell(session::event::Say{std::move(text), options.allow_interruptions, handle,
                                    options.priority, options.more});
  });
}
SpeechHandle Context::GenerateReply(std::string instructions, SpeechOptions options) {
  return Begin([&](uint64_t handle) {
    return Tell(session::event::GenerateReply{std::move(instructions), handle, options.priority,
                                              options.allow_interruptions});
  });
}
void Context::Interrupt() { Tell(session::event::Interrupt{}); }
absl::StatusOr<SpeechHandle> Context::SayAudio(std::vector<int16_t> samples, std::string text,
                                               SpeechOptions options) {
  constexpr size_t kMaxSamples = size_t{Playout::kRateHz} * 60;
  if (samples.empty() || samples.size() > kMaxSamples) {
    return InvalidArgument("audio of {} samples; 1 to {} are played", samples.size(), kMaxSamples);
  }
  return Begin([&](uint64_t handle) {
    session::event::Say say{std::move(text), options.allow_interruptions, handle, options.priority};
    return mailbox_->Post([this, samples = std::move(samples), say = std::move(say)]() mutable {
      control_.SayAudio(std::move(samples), std::move(say));
    });
  });
}
void Context::SetAgent(std::string name) { Tell(session::event::SetAgent{std::move(name)}); }
absl::Status Context::UpdateAgent(AgentConfig agent) {
  return Add(std::move(agent), session::SwitchKind::kHandOver);
}
absl::Status Context::BeginTask(AgentConfig agent) {
  return Add(std::move(agent), session::SwitchKind::kBeginTask);
}
void Context::EndTask() {
  Tell(session::event::SetAgent{.name = {}, .how = session::SwitchKind::kEndTask});
}

std::shared_ptr<AgentHooks> Context::HooksOf(const std::shared_ptr<Agent>& agent) {
  return std::make_shared<AgentHooks>(
      agent, std::shared_ptr<AgentSession>(shared_from_this(), this), log_);
}

absl::Status Context::Add(AgentConfig agent, session::SwitchKind how) {
  std::shared_ptr<AgentHooks> hooks;
  if (agent.agent != nullptr) {
    agent.instructions = agent.agent->instructions();
    agent.tools = agent.agent->tools();
    hooks = HooksOf(agent.agent);
  }
  PARLEY_RETURN_IF_ERROR(CheckAgent(agent));
  const bool posted =
      mailbox_->Post([this, agent = std::move(agent), hooks = std::move(hooks), how]() mutable {
        control_.AddAgent(std::move(agent), std::move(hooks), how);
      });
  return posted ? absl::OkStatus() : Aborted("the job is ending");
}
void Context::SetTurnDetection(session::TurnDetection detection) {
  Tell(session::event::SetTurnDetection{detection});
}
void Context::CommitUserTurn() { Tell(session::event::CommitTurn{}); }
void Context::ClearUserTurn() { Tell(session::event::ClearTurn{}); }

// ---- its speeches ----

void JobState::SpeechDone(const session::command::SpeechDone& done) {
  MutexLock lock(&mutex);
  const auto found = said.find(done.handle);
  if (found == said.end()) return;
  SpeechHandle::State& speech = *found->second;
  speech.done = true;
  speech.interrupted = done.interrupted;
  speech.heard = done.heard;
  said.erase(found);
  changed.SignalAll();
}

void JobState::SessionOver(absl::Status end) {
  MutexLock lock(&mutex);
  session_over = true;
  session_end = std::move(end);
  for (const auto& [handle, speech] : said) speech->done = speech->interrupted = true;
  said.clear();
  changed.SignalAll();
}

bool SpeechHandle::Wait(absl::Duration timeout) const {
  const absl::Time end = absl::Now() + timeout;
  MutexLock lock(&state_->job->mutex);
  while (!state_->done) {
    const absl::Duration left = end - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    state_->job->changed.WaitFor(&state_->job->mutex, std::min(left, absl::Hours(1)));
  }
  return true;
}

bool SpeechHandle::done() const {
  MutexLock lock(&state_->job->mutex);
  return state_->done;
}

bool SpeechHandle::interrupted() const {
  MutexLock lock(&state_->job->mutex);
  return state_->interrupted;
}

std::string SpeechHandle::heard() const {
  MutexLock lock(&state_->job->mutex);
  return state_->heard;
}

void SpeechHandle::Interrupt() const { state_->interrupt(); }
void SpeechHandle::Add(std::string text, bool last) const { state_->add(std::move(text), last); }

absl::Status Context::Wait() {
  MutexLock lock(&state_->mutex);
  while (!state_->session_over && !state_->stopping) state_->changed.Wait(&state_->mutex);
  return Detached(state_->session_end);
}

}  // namespace parley::agent
