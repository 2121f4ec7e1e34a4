#include "agent/server/job_process.h"

#include <absl/strings/escaping.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace parley::agent {
namespace {

namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;
using parley::dispatch::v1::JobReason;

constexpr uint32_t kProtocol = 1;
constexpr absl::Duration kEarlyFor = absl::Seconds(1);     // since the job is in its room
constexpr absl::Duration kOwnNewsWait = absl::Seconds(1);  // for a message that wakes it anyway
constexpr absl::Duration kExitAfterEnded = absl::Seconds(10);
constexpr absl::Duration kExitAfterClose = absl::Seconds(2);
constexpr absl::Duration kCheck = absl::Seconds(2);  // of memory and processor
constexpr double kMemoryWarning = 0.8;               // of the limit
constexpr double kBusy = 0.9;                        // of one processor
constexpr absl::Duration kForStacks = absl::Milliseconds(300);
// A call is handed over between two turns when one ends in time.
constexpr absl::Duration kQuietWait = absl::Seconds(10);
constexpr absl::Duration kHandOverAnswer = absl::Seconds(13);  // kQuietWait and some
// The store gives a successor 5 s from our pause.
constexpr absl::Duration kSuccessorSilent = absl::Seconds(6);
// A program that never enters its room has taken over all the same.
constexpr absl::Duration kEnterAfterTakeOver = absl::Seconds(2);
constexpr absl::Duration kFreezeAfter = absl::Seconds(12);  // a lease
constexpr size_t kMaxCheckpoint = 256 << 10;

int64_t Micros(absl::Duration duration) { return absl::ToInt64Microseconds(duration); }

// Anonymous memory of a process, the zygote's share included; 0 when unknown.
int64_t PrivateBytes(pid_t pid) {
  std::FILE* file = std::fopen(fmt::format("/proc/{}/statm", pid).c_str(), "re");
  if (file == nullptr) return 0;
  long long size = 0;
  long long resident = 0;
  long long shared = 0;
  const int got = std::fscanf(file, "%lld %lld %lld", &size, &resident, &shared);
  std::fclose(file);
  return got == 3 ? (resident - shared) * sysconf(_SC_PAGESIZE) : 0;
}

// CPU time of a process and all its threads; nothing when it is gone. By its clock, which costs a
// tenth of reading /proc.
std::optional<double> CpuSeconds(pid_t pid) {
  clockid_t clock{};
  timespec used{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0) {
    return std::nullopt;
  }
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

// One claim of a token that somebody else signed and will check: only to tell the job its name.
std::string ClaimOf(const std::string& token, const char* claim) {
  const size_t first = token.find('.');
  const size_t second = token.find('.', first + 1);
  std::string payload;
  if (second == std::string::npos ||
      !absl::WebSafeBase64Unescape(token.substr(first + 1, second - first - 1), &payload)) {
    return {};
  }
  const nlohmann::json claims = nlohmann::json::parse(payload, nullptr, false);
  if (!claims.is_object() || !claims.contains(claim) || !claims[claim].is_string()) return {};
  return claims[claim].get<std::string>();
}

}  // namespace

JobProcess::JobProcess(JobSurroundings& around, Host& host, supervise::JobForked forked)
    : around_(around),
      host_(host),
      pid_(forked.pid),
      output_fd_(std::move(forked.output)),
      output_watcher_(std::make_unique<event::FdWatcher>(*around.loop, output_fd_.get())),
      report_fd_(std::move(forked.report)),
      log_(around.log.With({{"pid", forked.pid}})),
      tools_(around, {.send = [this](jobv1::ToJob& message) { Send(message); },
                      .warn =
                          [this](std::string_view message, const std::vector<log::Field>& fields) {
                            Say(log::Level::kWarn, kServer, message, fields);
                          }}),
      memory_limit_(around.config.job_memory) {
  JobSocket::Callbacks callbacks;
  callbacks.on_message = [this](const jobv1::FromJob& message) { OnMessage(message); };
  callbacks.on_closed = [this](const std::string& error) { OnSocketClosed(error); };
  socket_ = std::make_unique<JobSocket>(*around.loop, std::move(forked.socket), callbacks);
  output_watcher_->Start(true, false, [this](bool, bool) { OnOutput(); });
  if (report_fd_.valid()) {
    report_watcher_ = std::make_unique<event::FdWatcher>(*around.loop, report_fd_.get());
    report_watcher_->Start(true, false, [this](bool, bool) { OnReport(); });
  }
  SetDeadline(around.config.start_timeout, parley::dispatch::v1::JOB_REASON_START_TIMEOUT,
              fmt::format("did not start within {}", DurationText(around.config.start_timeout)));
}

JobProcess::~JobProcess() {
  if (assigned_) around_.recordings.End(project_, session_id_, key_);
  if (room_ != 0) around_.media.Leave(room_, roomv1::DISCONNECT_REASON_AGENT_ERROR);
  output_watcher_.reset();
  report_watcher_.reset();
}

// ---- its life ----

void JobProcess::Assign(const parley::dispatch::v1::Go& go) {
  const auto& record = go.assignment();
  assigned_ = true;
  assigned_us_ = around_.loop->NowMicros();
  heard_us_ = assigned_us_;
  room_heard_us_ = assigned_us_;
  key_ = {record.job_id(), record.fencing_token()};
  project_ = record.project();
  session_id_ = record.session_id();
  attempt_ = record.attempt();
  room_token_ = go.room_token();
  media_url_ = record.media_url();
  log_ = around_.log.With({{"job_id", record.job_id()},
                           {"dispatch_id", record.dispatch_id()},
                           {"room", record.room()},
                           {"attempt", record.attempt()},
                           {"project", record.project()}});
  StartSpan(record);
  if (around_.config.job_max_duration > absl::ZeroDuration()) {
    max_duration_ = around_.config.job_max_duration;
  }
  ReadDefinition(go.definition_json());
  jobv1::ToJob message;
  jobv1::Assignment& assignment = *message.mutable_assignment();
  *assignment.mutable_job() = record;
  assignment.set_definition_json(go.definition_json());
  const JobAnswer& as = accepted_;
  assignment.set_identity(as.identity.empty() ? ClaimOf(room_token_, "sub") : as.identity);
  assignment.set_name(as.name.empty() ? ClaimOf(room_token_, "name") : as.name);
  assignment.set_metadata(as.metadata);
  *assignment.mutable_attributes() = record.attributes();
  for (const auto& [key, value] : as.attributes) (*assignment.mutable_attributes())[key] = value;
  auto& context = *assignment.mutable_context();
  context.set_project(record.project());
  context.set_agent_id(record.agent_id().empty() ? record.agent_name() : record.agent_id());
  context.set_agent_version(record.agent_version());
  context.set_session_id(record.session_id());
  context.set_traceparent(span_.context().Traceparent());
  assignment.set_audio_ahead_ms(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(MediaHub::kAudioAhead)));
  streams_ = std::make_shared<GatewayStreams>(around_.loop, around_.gateways, context,
                                              [this](jobv1::ToJob& event) { Send(event); });
  if (state_ == State::kKilled) return;
  state_ = State::kStarting;
  SetDeadline(around_.config.start_timeout, parley::dispatch::v1::JOB_REASON_START_TIMEOUT,
              fmt::format("the entrypoint did not run within {}",
                          DurationText(around_.config.start_timeout)));
  tools_.SendWith(std::move(message));
}

void JobProcess::StartSpan(const parley::dispatch::v1::Assignment& record) {
  span_ = around_.tracer.Start("job", trace::Kind::kConsumer,
                               TraceContext::Parse(record.traceparent()));
  span_.Set("job_id", record.job_id());
  span_.Set("dispatch_id", record.dispatch_id());
  span_.Set("room", record.room());
  span_.Set("agent", record.agent_id().empty() ? record.agent_name() : record.agent_id());
  span_.Set("attempt", int64_t{record.attempt()});
  if (span_.context().valid()) log_ = log_.With({{"trace_id", span_.context().TraceId()}});
}

void JobProcess::RecordTurn(const jobv1::TurnReport& turn) {
  around_.tracer.Record("turn", trace::Kind::kInternal, span_.context(),
                        absl::Now() - absl::Milliseconds(turn.total_ms()), absl::Now(),
                        {{"turn_id", turn.turn_id()},
                         {"endpointing_ms", turn.endpointing_ms()},
                         {"transcript_ms", turn.transcript_ms()},
                         {"llm_ms", turn.llm_ms()},
                         {"tts_ms", turn.tts_ms()},
                         {"output_ms", turn.output_ms()},
                         {"tool_calls", int64_t{turn.tool_calls()}}});
}

void JobProcess::Hold(parley::dispatch::v1::Go go) {
  assigned_ = true;
  heard_us_ = around_.loop->NowMicros();
  key_ = {go.assignment().job_id(), go.assignment().fencing_token()};
  log_ = around_.log.With({{"job_id", key_.job_id}, {"room", go.assignment().room()}});
  held_ = std::move(go);
  JobTools::LookUp(around_, held_->assignment().project(), held_->definition_json());
  if (ready_) host_.OnJobPrepared(*this);
}

void JobProcess::TakeOver(const std::string& checkpoint, absl::Time paused) {
  if (!held_.has_value() || state_ == State::kKilled) return;
  parley::dispatch::v1::Go go = *std::exchange(held_, std::nullopt);
  go.mutable_assignment()->set_take_over(false);
  go.mutable_assignment()->set_resuming(true);
  go.mutable_assignment()->set_checkpoint(checkpoint);
  taking_over_ = true;
  paused_ = paused;
  Assign(go);
}

// The one before is out of the room, so it cannot be heard any more: the broker may know.
void JobProcess::OnTakenOver() {
  if (!std::exchange(taking_over_, false)) return;
  if (paused_ != absl::InfinitePast()) {
    const double gap = std::max(0.0, absl::ToDoubleSeconds(absl::Now() - paused_));
    around_.metrics.handover_gap.Observe(gap);
    log_.Info("job taken over", {{"pid", pid_}, {"gap_ms", gap * 1e3}});
  } else {
    log_.Info("job taken over from a lost server", {{"pid", pid_}});
  }
  host_.OnJobEntered(*this);
}

void JobProcess::HandOver() {
  if (state_ != State::kRunning || hand_over_until_us_ > 0) return;
  hand_over_until_us_ = around_.loop->NowMicros() + Micros(kHandOverAnswer);
  jobv1::ToJob message;
  message.mutable_hand_over()->set_wait_ms(
      static_cast<int32_t>(absl::ToInt64Milliseconds(kQuietWait)));
  Send(message);
}

void JobProcess::GoOn() {
  if (hand_over_until_us_ == 0) return;
  hand_over_until_us_ = 0;
  around_.metrics.handovers_failed.Increment();
  log_.Warn("hand-over called off; the job goes on here", {});
  jobv1::ToJob message;
  message.mutable_hand_over()->set_cancel(true);
  Send(message);
}

void JobProcess::OnHandedOver(const jobv1::HandedOver& handed) {
  if (hand_over_until_us_ == 0) return;  // called off
  const bool fits = handed.checkpoint().size() <= kMaxCheckpoint;
  if (!fits) {
    log_.Warn("checkpoint dropped: over 256 KiB", {{"bytes", handed.checkpoint().size()}});
  }
  hand_over_until_us_ = around_.loop->NowMicros() + Micros(kSuccessorSilent);
  log_.Info("job paused for its successor", {{"checkpoint_bytes", handed.checkpoint().size()}});
  if (!host_.OnJobHandedOver(*this, fits ? handed.checkpoint() : std::string())) GoOn();
}

void JobProcess::SetBrokerLost(bool lost) {
  broker_lost_ = lost;
  CheckFreeze(around_.loop->NowMicros());
}

// Silence on both sides for as long as a lease: somebody else may have the job by now. Whatever it
// would do, a tool call for one, might be done twice.
void JobProcess::CheckFreeze(int64_t now_us) {
  if (room_ != 0 && around_.media.Connected(room_)) room_heard_us_ = now_us;
  const bool cut_off = broker_lost_ && now_us - room_heard_us_ >= Micros(kFreezeAfter);
  if (cut_off == frozen_) return;
  if (cut_off && state_ != State::kRunning) return;
  Freeze(cut_off);
}

void JobProcess::Freeze(bool on) {
  frozen_ = on;
  log_.Warn(on ? "cut off from broker and room: the job is frozen"
               : "not cut off any more: the job goes on",
            {});
  jobv1::ToJob message;
  message.mutable_freeze()->set_on(on);
  Send(message);
}

void JobProcess::ReadDefinition(const std::string& definition_json) {
  tools_.Read(project_, definition_json);
  const auto definition = nlohmann::json::parse(definition_json, nullptr, false);
  if (!definition.is_object() || !definition.contains("limits")) return;
  const nlohmann::json& limits = definition["limits"];
  const auto text = [&limits](const char* key) -> std::string {
    return limits.is_object() && limits.contains(key) && limits[key].is_string()
               ? limits[key].get<std::string>()
               : "";
  };
  if (const auto memory = ParseSize(text("memory")); memory.has_value() && *memory > 0) {
    memory_limit_ = memory_limit_ == 0 ? *memory : std::min(memory_limit_, *memory);
  }
  if (const auto longest = ParseDuration(text("max_duration"));
      longest.has_value() && *longest > absl::ZeroDuration()) {
    max_duration_ = std::min(max_duration_, *longest);
  }
}

void JobProcess::SetDeadline(absl::Duration in, JobReason reason, std::string_view error) {
  deadline_us_ = around_.loop->NowMicros() + Micros(in);
  deadline_reason_ = reason;
  deadline_error_ = error;
}

void JobProcess::Shutdown(jobv1::Shutdown::Why why, absl::Duration grace, JobReason reason,
                          std::string_view message) {
  if (state_ == State::kKilled || state_ == State::kEnding || state_ == State::kStopping) return;
  if (held_.has_value()) return Revoke();  // the job is still another server's
  hand_over_until_us_ = 0;
  state_ = State::kStopping;
  SetDeadline(grace, reason,
              fmt::format("did not end within {} of being told to", DurationText(grace)));
  jobv1::ToJob request;
  request.mutable_shutdown()->set_why(why);
  request.mutable_shutdown()->set_grace_ms(static_cast<int32_t>(absl::ToInt64Milliseconds(grace)));
  request.mutable_shutdown()->set_message(std::string(message));
  Send(request);
}

void JobProcess::Kill(JobReason reason, std::string_view error) {
  if (state_ == State::kKilled) return;
  state_ = State::kKilled;
  killed_ = JobOutcome{false, reason, std::string(error), {}};
  if (!around_.zygote.Signal(pid_, SIGKILL).ok()) kill(pid_, SIGKILL);
}

void JobProcess::Revoke() {
  revoked_ = true;
  Kill(parley::dispatch::v1::JOB_REASON_UNSPECIFIED, "revoked");
}

void JobProcess::Tick() {
  const int64_t now = around_.loop->NowMicros();
  if (deadline_us_ > 0 && now >= deadline_us_) {
    deadline_us_ = 0;
    never_started_ = !ready_;
    return Kill(deadline_reason_, deadline_error_);
  }
  if (!assigned_ || dumping_ || state_ == State::kKilled) return;
  if (wakes_.Stranded(now)) socket_->SendWaiting();
  if (own_news_us_ > 0 && now - own_news_us_ >= Micros(kOwnNewsWait)) {
    own_news_us_ = 0;
    socket_->SendWaiting();
  }
  if (hand_over_until_us_ > 0 && now >= hand_over_until_us_) GoOn();
  if (taking_over_ && taking_over_until_us_ > 0 && now >= taking_over_until_us_) OnTakenOver();
  CheckFreeze(now);
  if (max_duration_us_ > 0 && now >= max_duration_us_) {
    max_duration_us_ = 0;
    Shutdown(jobv1::Shutdown::LIMIT, around_.config.stop_grace,
             parley::dispatch::v1::JOB_REASON_LIMIT_EXCEEDED,
             fmt::format("the limit of {} is reached", DurationText(max_duration_)));
  }
  CheckResources(now);
  Ping(now);
}

void JobProcess::CheckResources(int64_t now_us) {
  if (now_us < next_check_us_) return;
  const absl::Duration busy_timeout = around_.config.busy_timeout;
  const bool watch_cpu = busy_timeout > absl::ZeroDuration();
  next_check_us_ = now_us + Micros(watch_cpu ? std::min(kCheck, busy_timeout / 4) : kCheck);
  if (memory_limit_ > 0) {
    const int64_t used = PrivateBytes(pid_);
    if (used > memory_limit_) {
      return Kill(parley::dispatch::v1::JOB_REASON_OUT_OF_MEMORY,
                  fmt::format("used {} of memory; its limit is {}", SizeText(used),
                              SizeText(memory_limit_)));
    }
    const bool much =
        static_cast<double>(used) > kMemoryWarning * static_cast<double>(memory_limit_);
    if (much && !std::exchange(memory_warned_, true)) {
      Say(log::Level::kWarn, kServer, "the job nears its limit of memory",
          {{"used", SizeText(used)}, {"limit", SizeText(memory_limit_)}});
    }
  }
  const std::optional<double> cpu = watch_cpu ? CpuSeconds(pid_) : std::nullopt;
  if (!cpu.has_value()) return;
  const double share =
      cpu_at_us_ == 0 ? 0
                      : (*cpu - cpu_seconds_) / (static_cast<double>(now_us - cpu_at_us_) / 1e6);
  if (share < kBusy) {
    busy_since_us_ = 0;
  } else if (busy_since_us_ == 0) {
    busy_since_us_ = cpu_at_us_;
  }
  cpu_seconds_ = *cpu;
  cpu_at_us_ = now_us;
  if (busy_since_us_ == 0 || now_us - busy_since_us_ < Micros(busy_timeout)) return;
  KillWithStacks(parley::dispatch::v1::JOB_REASON_LIMIT_EXCEEDED,
                 fmt::format("used a whole processor for {}", DurationText(busy_timeout)));
}

void JobProcess::KillWithStacks(JobReason reason, std::string_view error) {
  if (dumping_ || state_ == State::kKilled) return;
  dumping_ = true;
  Say(log::Level::kError, kServer, "the job is about to be killed; its stacks follow",
      {{"error", std::string(error)}});
  SetDeadline(kForStacks, reason, error);
  if (!around_.zygote.DumpStacks(pid_).ok()) Kill(reason, error);
}

void JobProcess::Ping(int64_t now_us) {
  if (state_ == State::kEnding) return;
  if (now_us - ping_sent_us_ < Micros(around_.config.ping_interval)) return;
  if (ping_id_ > 0 && now_us - heard_us_ > Micros(around_.config.hang_timeout)) {
    return KillWithStacks(
        parley::dispatch::v1::JOB_REASON_HUNG,
        fmt::format("no sign of life for {}", DurationText(around_.config.hang_timeout)));
  }
  ping_sent_us_ = now_us;
  jobv1::ToJob message;
  message.mutable_ping()->set_id(++ping_id_);
  Send(message);
}

JobOutcome JobProcess::Finish(const supervise::JobExited& exited) {
  socket_->Drain();
  while (OnOutput()) {
  }
  LogOutput(std::exchange(output_line_, {}));
  if (room_ != 0) {
    const bool orderly = ended_.has_value() || revoked_;
    around_.media.Leave(std::exchange(room_, 0), orderly
                                                     ? roomv1::DISCONNECT_REASON_CLIENT_INITIATED
                                                     : roomv1::DISCONNECT_REASON_AGENT_ERROR);
  }
  JobOutcome outcome = OutcomeOf(exited);
  if (!assigned_) return outcome;
  const std::string reason = parley::dispatch::v1::JobReason_Name(outcome.reason);
  Say(log::Level::kInfo, kServer, outcome.released ? "job given up" : "job ended",
      {{"reason", reason},
       {"error", outcome.error},
       {"cpu_seconds", exited.cpu_seconds},
       {"max_rss", SizeText(exited.max_rss_bytes)}});
  around_.logs.Ended(key_.job_id);
  span_.Set("reason", reason);
  span_.Set("cpu_seconds", exited.cpu_seconds);
  if (!outcome.error.empty()) span_.Fail(outcome.error);
  span_.End();
  return outcome;
}

JobOutcome JobProcess::OutcomeOf(const supervise::JobExited& exited) const {
  JobOutcome outcome;
  if (revoked_) {
    outcome.released = true;
    return outcome;
  }
  if (ended_.has_value()) return *ended_;
  if (killed_.has_value()) return *killed_;
  if (exited.out_of_memory) {
    outcome.reason = parley::dispatch::v1::JOB_REASON_OUT_OF_MEMORY;
    outcome.error = fmt::format("killed by the kernel at the limit of {} of its control group",
                                SizeText(around_.config.job_memory));
  } else if (exited.exit_code == supervise::kExitOutOfMemory) {
    outcome.reason = parley::dispatch::v1::JOB_REASON_OUT_OF_MEMORY;
    outcome.error = fmt::format("an allocation failed under the limit of {}",
                                SizeText(around_.config.job_memory));
  } else if (exited.exit_code == supervise::kExitException) {
    outcome.reason = parley::dispatch::v1::JOB_REASON_ENTRYPOINT_ERROR;
    outcome.error = "an exception left the entrypoint; see the job's output";
  } else if (exited.signal == SIGXCPU) {
    outcome.reason = parley::dispatch::v1::JOB_REASON_LIMIT_EXCEEDED;
    outcome.error = fmt::format("used {:.0f} s of CPU time", exited.cpu_seconds);
  } else if (exited.signal != 0) {
    outcome.reason = parley::dispatch::v1::JOB_REASON_PROCESS_CRASHED;
    outcome.error =
        fmt::format("killed by signal {} ({})", exited.signal, strsignal(exited.signal));
  } else {
    outcome.reason = parley::dispatch::v1::JOB_REASON_PROCESS_CRASHED;
    outcome.error =
        fmt::format("exited with code {} without saying how it ended", exited.exit_code);
  }
  return outcome;
}

// ---- what it says ----

void JobProcess::OnMessage(const jobv1::FromJob& message) {
  switch (message.message_case()) {
    case jobv1::FromJob::kHello:
      return OnHello(message.hello());
    case jobv1::FromJob::kPong:
      heard_us_ = around_.loop->NowMicros();
      return;
    case jobv1::FromJob::kLog:
      return OnLog(message.log());
    default:
      if (assigned_ && !revoked_ && !ended_.has_value()) OnJobMessage(message);
  }
}

void JobProcess::OnJobMessage(const jobv1::FromJob& message) {
  switch (message.message_case()) {
    case jobv1::FromJob::kEntered:
      return OnEntered();
    case jobv1::FromJob::kEnded:
      return OnEnded(message.ended());
    case jobv1::FromJob::kJoin:
      return OnJoin(message.join());
    case jobv1::FromJob::kRoomCommand:
      return around_.media.Command(room_, message.room_command());
    case jobv1::FromJob::kAudio:
      return OnAudio(message.audio());
    case jobv1::FromJob::kAudioCut:
      return around_.media.CutAudio(room_, message.audio_cut().track_number(),
                                    message.audio_cut().after_us());
    case jobv1::FromJob::kStt:
      if (message.stt().has_end_utterance()) wakes_.UtteranceOver(around_.loop->NowMicros());
      return streams_->OnStt(message.stt());
    case jobv1::FromJob::kLlm:
      return streams_->OnLlm(message.llm());
    case jobv1::FromJob::kTts:
      return streams_->OnTts(message.tts());
    case jobv1::FromJob::kRealtime:
      return streams_->OnRealtime(message.realtime());
    case jobv1::FromJob::kToolCall:
      return tools_.OnCall(message.tool_call(), span_.context());
    case jobv1::FromJob::kCheckpoint:
      if (message.checkpoint().blob().size() <= kMaxCheckpoint) {
        return host_.OnJobCheckpoint(*this, message.checkpoint().blob());
      }
      return log_.Warn("checkpoint dropped: over 256 KiB",
                       {{"bytes", message.checkpoint().blob().size()}});
    case jobv1::FromJob::kTurn:
      return OnTurn(message.turn());
    case jobv1::FromJob::kHandedOver:
      return OnHandedOver(message.handed_over());
    case jobv1::FromJob::kStalled:
      return OnStalled(message.stalled());
    case jobv1::FromJob::kRecording:
      return around_.recordings.Append(project_, session_id_, key_, message.recording());
    default:
      return;  // newer than this server
  }
}

void JobProcess::OnHello(const jobv1::Hello& hello) {
  if (hello.protocol() == kProtocol) {
    ready_ = true;
    if (state_ == State::kWarm) deadline_us_ = 0;
    host_.OnJobReady(*this);
    if (held_.has_value()) host_.OnJobPrepared(*this);
    return;
  }
  Kill(parley::dispatch::v1::JOB_REASON_ENTRYPOINT_ERROR,
       fmt::format("the job speaks protocol {}, this server speaks {}", hello.protocol(),
                   kProtocol));
}

void JobProcess::OnEntered() {
  if (state_ != State::kStarting) return;
  state_ = State::kRunning;
  deadline_us_ = 0;
  const int64_t now = around_.loop->NowMicros();
  if (max_duration_ < absl::InfiniteDuration()) max_duration_us_ = now + Micros(max_duration_);
  around_.metrics.launch.Observe(static_cast<double>(now - assigned_us_) / 1e6);
  around_.tracer.Record("start of the job", trace::Kind::kInternal, span_.context(),
                        absl::Now() - absl::Microseconds(now - assigned_us_), absl::Now());
  Say(log::Level::kInfo, kServer, "job running",
      {{"pid", pid_}, {"launch_us", now - assigned_us_}});
  if (!taking_over_) return host_.OnJobEntered(*this);
  taking_over_until_us_ = now + Micros(kEnterAfterTakeOver);
}

void JobProcess::OnEnded(const jobv1::Ended& ended) {
  ended_ = JobOutcome{false, ended.reason(), ended.error(), ended.session()};
  if (ended_->reason == parley::dispatch::v1::JOB_REASON_UNSPECIFIED) {
    ended_->reason = parley::dispatch::v1::JOB_REASON_ENTRYPOINT_ERROR;
  }
  if (state_ == State::kKilled) return;
  state_ = State::kEnding;
  SetDeadline(kExitAfterEnded, ended_->reason, ended_->error);
}

void JobProcess::OnSocketClosed(const std::string& error) {
  if (!error.empty()) {
    return Kill(parley::dispatch::v1::JOB_REASON_PROCESS_CRASHED, "the job sent " + error);
  }
  if (state_ == State::kKilled || ended_.has_value()) return;
  SetDeadline(kExitAfterClose, parley::dispatch::v1::JOB_REASON_PROCESS_CRASHED,
              "closed its socket without saying how it ended");
}

// ---- its room ----

void JobProcess::OnJoin(const jobv1::Join& join) {
  if (room_ != 0) return;
  roomv1::JoinOptions options = join.options();
  // Not the job's to choose.
  options.set_identity(accepted_.identity);
  options.set_name(accepted_.name);
  room_ = around_.media.Join(*this, media_url_, room_token_, options);
}

void JobProcess::OnJoined(const roomv1::Joined& joined) {
  joined_us_ = around_.loop->NowMicros();
  own_identity_ = joined.participant().identity();
  OnTakenOver();
  jobv1::ToJob message;
  *message.mutable_joined() = joined;
  Send(message);
}

void JobProcess::OnJoinFailed(const roomv1::SessionClosed& why) {
  room_ = 0;
  Say(log::Level::kWarn, kServer, "cannot enter the room",
      {{"reason", why.reason()}, {"error", why.message()}});
  if (why.reason() == "STALE_TOKEN") return Revoke();  // a newer attempt is in there
  jobv1::ToJob message;
  message.mutable_join_failed()->set_code(why.code());
  message.mutable_join_failed()->set_reason(why.reason());
  message.mutable_join_failed()->set_message(why.message());
  Send(message);
}

void JobProcess::OnRoomEvent(const roomv1::RoomEvent& event) {
  if (event.has_disconnected()) {
    room_ = 0;
    if (event.disconnected().reason() == roomv1::DISCONNECT_REASON_REPLACED) return Revoke();
  }
  jobv1::ToJob message;
  *message.mutable_room_event() = event;
  // It knows what it said of itself: that is no reason to wake it up.
  const bool own = event.has_participant_updated() &&
                   event.participant_updated().participant().identity() == own_identity_;
  if (!own) return Send(message);
  if (own_news_us_ == 0) own_news_us_ = around_.loop->NowMicros();
  socket_->SendFresh(message, /*wait=*/true, /*any_case=*/true);
}

void JobProcess::OnRoomAudio(const roomv1::SessionFrame& frame) {
  jobv1::AudioIn& audio = *audio_in_.mutable_audio();
  audio.set_track_number(frame.track_number());
  audio.set_codec(frame.codec());
  audio.set_timestamp(frame.timestamp());
  audio.set_level(frame.level());
  audio.mutable_data()->assign(frame.data());
  const int64_t now_us = around_.loop->NowMicros();
  const bool wait = wakes_.MayWait(frame.track_number(), frame.level(), now_us);
  // What was said before the job was there comes in one go, and none of it is late.
  const bool early = now_us - joined_us_ < Micros(kEarlyFor);
  if (!wait) own_news_us_ = 0;  // it goes along
  if (!socket_->SendFresh(audio_in_, wait, early)) around_.metrics.late_in.Increment();
}

void JobProcess::OnAudio(const jobv1::AudioOut& audio) {
  roomv1::SessionFrame frame;
  frame.set_track_number(audio.track_number());
  frame.set_codec(audio.codec());
  frame.set_timestamp(audio.timestamp());
  frame.set_level(audio.level());
  frame.set_data(audio.data());
  around_.media.SendAudio(room_, std::move(frame), audio.due_us());
}

void JobProcess::Send(jobv1::ToJob& message) {
  own_news_us_ = 0;  // it goes along
  if (state_ == State::kKilled || socket_->Send(message)) return;
  if (socket_->backlog() == 0) return;  // it is gone; its exit tells the rest
  Kill(parley::dispatch::v1::JOB_REASON_HUNG, "the job does not read its socket");
}

}  // namespace parley::agent
