#include "agent/console/console.h"

#include <absl/time/time.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "agent/console/gateways.h"
#include "agent/console/sound.h"
#include "agent/console/stage.h"
#include "agent/console/view.h"
#include "agent/server/worker_token.h"
#include "audio/wav.h"
#include "base/status.h"
#include "base/strings.h"
#include "supervise/terminal.h"

namespace parley::agent {
namespace {

namespace jobv1 = parley::job::v1;

constexpr int kRateHz = 48'000;
constexpr absl::Duration kFrame = absl::Milliseconds(20);
constexpr int64_t kFrameUs = 20'000;
constexpr int64_t kMeterUs = 100'000;
// The next of several things is said when the agent has been quiet for so long …
constexpr int64_t kQuietUs = 300'000;
// … or has not answered for so long.
constexpr int64_t kAnswerUs = 10'000'000;
// How long the job may take to end: then it is told to, then killed.
constexpr int64_t kLeaveUs = 10'000'000;

// Somebody at the terminal, and the job at the other end. Everything is on one loop, on the thread
// that made it.
class Console {
 public:
  Console(supervise::ZygoteClient& zygote, const AgentServerConfig& config,
          service::Context& context, const ConsoleConfig& console)
      : zygote_(zygote),
        config_(config),
        context_(context),
        console_(console),
        loop_(std::make_shared<event::Loop>()),
        zygote_watcher_(*loop_, zygote.fd()),
        ticks_(*loop_) {}

  absl::Status Run();

 private:
  absl::Status StartGateways();
  absl::Status LoadFiles();
  void OnZygote();
  void OnForked(supervise::JobForked forked);
  void Begin();
  void OnInput();
  void Tick();
  void TickSound();
  void Next();
  bool Quiet() const;
  void OnState(const std::string& state);
  void Leave();
  void Over(const absl::Status& status);

  supervise::ZygoteClient& zygote_;
  const AgentServerConfig& config_;
  service::Context& context_;
  const ConsoleConfig& console_;
  View view_;
  std::vector<std::unique_ptr<LocalGateway>> local_;
  std::shared_ptr<event::Loop> loop_;
  std::unique_ptr<Gateways> gateways_;
  event::FdWatcher zygote_watcher_;
  event::Timer ticks_;
  std::unique_ptr<Stage> stage_;
  std::unique_ptr<Sound> sound_;
  pid_t job_ = 0;

  std::string input_;
  bool input_over_ = false;
  bool by_hand_ = false;                                            // whoever types decides when
  std::deque<std::string> lines_;                                   // to be written
  std::deque<std::pair<std::string, std::vector<int16_t>>> files_;  // to be said
  std::string state_ = "initializing";
  std::string partial_;
  int64_t changed_us_ = 0;  // when the agent last did something
  int64_t asked_us_ = 0;    // when it was last told something; 0: it has answered
  int64_t metered_us_ = 0;
  int64_t left_us_ = 0;  // when the person left; 0: still there
  bool stopped_ = false;
  bool agent_spoke_ = false;
  bool over_ = false;
  absl::Status status_;
};

absl::Status Console::StartGateways() {
  Gateways::Addresses addresses{config_.stt_address, config_.tts_address, config_.llm_address};
  const std::pair<std::string*, const char*> wanted[] = {{&addresses.llm, "parley-llm-gateway"},
                                                         {&addresses.stt, "parley-stt-gateway"},
                                                         {&addresses.tts, "parley-tts-gateway"}};
  for (const auto& [address, program] : wanted) {
    const bool needed = console_.sound() || address == &addresses.llm;
    if (!address->empty() || !needed) continue;
    PARLEY_ASSIGN_OR_RETURN(auto gateway, LocalGateway::Start(program));
    *address = gateway->address();
    local_.push_back(std::move(gateway));
  }
  // Never asked in a written conversation.
  for (const auto& [address, program] : wanted) {
    if (address->empty()) *address = "127.0.0.1:1";
  }
  gateways_ = std::make_unique<Gateways>(
      addresses, [this](const std::string&) { return WorkerToken(config_, context_, "console"); });
  return absl::OkStatus();
}

absl::Status Console::LoadFiles() {
  for (const std::string& path : console_.wav) {
    PARLEY_ASSIGN_OR_RETURN(std::vector<int16_t> samples, audio::ReadSpeech(path, kRateHz));
    files_.emplace_back(path, std::move(samples));
  }
  if (!console_.sound()) return absl::OkStatus();
  Sound::Options options{.record = !console_.record.empty()};
  if (console_.mic) {
    options.microphone = console_.microphone;
    options.loudspeaker = console_.loudspeaker;
  }
  PARLEY_ASSIGN_OR_RETURN(sound_, Sound::Open(options));
  return absl::OkStatus();
}

absl::Status Console::Run() {
  PARLEY_RETURN_IF_ERROR(LoadFiles());
  PARLEY_RETURN_IF_ERROR(StartGateways());
  zygote_watcher_.Start(true, false, [this](bool, bool) { OnZygote(); });
  PARLEY_RETURN_IF_ERROR(zygote_.Start());
  ticks_.StartRepeating(kFrame, [this] { Tick(); });
  loop_->Run();
  (void)zygote_.Leave();
  stage_.reset();
  if (sound_ != nullptr && !console_.record.empty()) {
    const absl::Status saved = sound_->Save(console_.record);
    if (status_.ok()) status_ = saved;
  }
  view_.Sum();
  if (status_.ok() && !agent_spoke_) status_ = Unavailable("the agent said nothing");
  return status_;
}

void Console::Over(const absl::Status& status) {
  if (!std::exchange(over_, true)) status_ = status;
  loop_->Stop();
}

// ---- the job ----

void Console::OnZygote() {
  while (std::optional<supervise::Event> event = zygote_.Next()) {
    if (auto* ready = std::get_if<supervise::Ready>(&*event)) {
      if (!ready->status.ok()) return Over(ready->status);
      Begin();
    } else if (auto* forked = std::get_if<supervise::JobForked>(&*event)) {
      OnForked(std::move(*forked));
    } else if (auto* exited = std::get_if<supervise::JobExited>(&*event)) {
      if (exited->pid == job_ && stage_ != nullptr) stage_->OnExited(*exited);
    } else {
      zygote_watcher_.Stop();
      return Over(Aborted("the zygote is gone"));
    }
  }
}

void Console::Begin() {
  supervise::JobLimits limits;
  limits.memory_bytes = config_.job_memory;
  limits.open_files = config_.job_open_files;
  limits.network = config_.job_network ? supervise::Network::kHost : supervise::Network::kNone;
  limits.hide_memory = false;
  const absl::Status asked = zygote_.Fork(1, limits);
  if (!asked.ok()) Over(asked);
}

void Console::OnForked(supervise::JobForked forked) {
  if (!forked.status.ok()) return Over(forked.status);
  job_ = forked.pid;
  Stage::Callbacks callbacks;
  callbacks.agent_state = [this](const std::string& state) { OnState(state); };
  callbacks.said = [this](bool agent, const std::string& text, bool final) {
    changed_us_ = loop_->NowMicros();
    agent_spoke_ = agent_spoke_ || agent;
    if (!agent) partial_ = final ? "" : text;
    if (final && !text.empty()) view_.Said(agent ? "agent" : "you", text);
  };
  callbacks.turn = [this](const jobv1::TurnReport& turn) { view_.Turn(turn); };
  callbacks.log = [this](const jobv1::LogLine& line) { view_.Log(line); };
  callbacks.audio = [this](std::span<const int16_t> samples) {
    if (sound_ != nullptr) sound_->Play(samples);
  };
  callbacks.ended = [this](const absl::Status& status) { Over(status); };
  stage_ = std::make_unique<Stage>(
      loop_, *gateways_, std::move(forked),
      Stage::Options{config_.agent_names.at(0), console_.metadata, console_.sound()},
      std::move(callbacks));
  if (!console_.sound()) {
    by_hand_ = isatty(STDIN_FILENO) != 0;
    if (by_hand_) view_.Note("Write, and Enter says it; Ctrl-D leaves.");
  } else if (console_.mic) {
    view_.Note("Speak; Ctrl-C leaves.");
  }
}

void Console::OnState(const std::string& state) {
  changed_us_ = loop_->NowMicros();
  if (state == "thinking" || state == "speaking") asked_us_ = 0;
  state_ = state;
}

// ---- the person ----

// Standard input may be a file, which no loop can watch: it is read with the ticks.
void Console::OnInput() {
  char piece[4096];
  pollfd wait{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  if (poll(&wait, 1, 0) <= 0) return;
  const ssize_t got = read(STDIN_FILENO, piece, sizeof piece);
  if (got > 0) input_.append(piece, static_cast<size_t>(got));
  input_over_ = got <= 0;
  if (input_over_ && !input_.empty()) input_ += '\n';
  for (size_t end = input_.find('\n'); end != std::string::npos; end = input_.find('\n')) {
    const std::string line(Trim(std::string_view(input_).substr(0, end)));
    input_.erase(0, end + 1);
    if (!line.empty()) lines_.push_back(line);
  }
}

// The agent is done with what it was told.
bool Console::Quiet() const {
  const int64_t now_us = loop_->NowMicros();
  if (sound_ != nullptr && sound_->speaking()) return false;
  if (asked_us_ != 0 && now_us - asked_us_ < kAnswerUs) return false;
  return (state_ == "listening" || state_ == "idle") && now_us - changed_us_ >= kQuietUs;
}

void Console::Next() {
  if (!lines_.empty() && (by_hand_ || Quiet())) {
    if (!by_hand_) view_.Said("you", lines_.front());
    stage_->Write(lines_.front());
    lines_.pop_front();
    asked_us_ = loop_->NowMicros();
  } else if (!files_.empty() && Quiet()) {
    view_.Note("says " + files_.front().first);
    sound_->Speak(std::move(files_.front().second));
    files_.pop_front();
    asked_us_ = loop_->NowMicros();
  } else if (lines_.empty() && files_.empty() && !console_.mic &&
             (console_.sound() || input_over_) && (by_hand_ || Quiet())) {
    Leave();
  }
}

void Console::Leave() {
  if (left_us_ != 0) return;
  left_us_ = loop_->NowMicros();
  if (stage_ == nullptr) return Over(Cancelled("stopped"));
  stage_->Leave();
}

void Console::Tick() {
  if (context_.stop_requested()) Leave();
  if (stage_ == nullptr || over_) return;
  const int64_t now_us = loop_->NowMicros();
  if (sound_ != nullptr) TickSound();
  if (left_us_ == 0) {
    if (!console_.sound() && !input_over_) OnInput();
    return Next();
  }
  if (now_us - left_us_ < kLeaveUs) return;
  if (!std::exchange(stopped_, true)) {
    left_us_ = now_us;
    return stage_->Stop();
  }
  Over(DeadlineExceeded("the job did not end"));
}

void Console::TickSound() {
  Sound::Frame frame;
  if (const absl::Status status = sound_->Tick(frame); !status.ok()) return Over(status);
  if (sound_->speaking()) asked_us_ = loop_->NowMicros();  // the answer counts from its end
  stage_->Hear(frame);
  const int64_t now_us = loop_->NowMicros();
  if (now_us - metered_us_ < kMeterUs) return;
  metered_us_ = now_us;
  view_.Meter(sound_->person_dbov(), sound_->agent_dbov(), state_, partial_);
}

}  // namespace

void ConsoleConfig::Bind(config::Table& table) {
  table.List("wav", &wav, "WAV files to say, each once the agent is silent; otherwise write");
  table.Bool("mic", &mic, "Talk: microphone and loudspeaker, by ALSA");
  table.Text("microphone", &microphone, "ALSA device of the microphone");
  table.Text("loudspeaker", &loudspeaker, "ALSA device of the loudspeaker");
  table.Text("record", &record, "WAV file for both sides of a spoken conversation");
  table.Text("metadata", &metadata, "Metadata of the job");
}

int RunConsole(supervise::ZygoteClient& zygote, const AgentServerConfig& config,
               service::Context& context, const ConsoleConfig& console) {
  signal(SIGPIPE, SIG_IGN);
  supervise::TakeTerminal();
  Console run(zygote, config, context, console);
  const absl::Status status = run.Run();
  return status.ok() ? 0 : service::FailStart("console", status);
}

}  // namespace parley::agent
