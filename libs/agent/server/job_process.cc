#include "agent/server/job_process.h"

#include <absl/debugging/symbolize.h>
#include <absl/strings/escaping.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "supervise/refusals.h"

namespace parley::agent {
namespace {

namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;
using parley::dispatch::v1::JobReason;

constexpr uint32_t kProtocol = 1;
// Audio that nobody can hear waits for more of its kind: softer than speech ever is (the detector
// of voices begins at -52 dBov), after a second of nothing louder, or once the job has closed the
// utterance: silence tells it nothing more then. What a caller says goes on to the job in threes,
// once it is clear that somebody speaks: its frames know when they came.
constexpr uint32_t kQuietLevel = 60;  // -dBov
constexpr uint32_t kLevelUnknown = 127;
constexpr absl::Duration kQuietFor = absl::Seconds(1);
constexpr int kQuietFrames = 20;
constexpr int kSpokenFrames = 3;
constexpr int kFirstSpoken = 10;  // each at once: speech begins
constexpr absl::Duration kFrame = absl::Milliseconds(20);
constexpr absl::Duration kEarlyFor = absl::Seconds(1);  // since the job is in its room
constexpr size_t kMaxTracksWithLevels = 64;
constexpr absl::Duration kExitAfterEnded = absl::Seconds(10);
constexpr absl::Duration kExitAfterClose = absl::Seconds(2);
constexpr absl::Duration kCheck = absl::Seconds(2);  // of memory and processor
constexpr double kMemoryWarning = 0.8;               // of the limit
constexpr double kBusy = 0.9;                        // of one processor
constexpr absl::Duration kForStacks = absl::Milliseconds(300);
constexpr int kNotedRefusals = 20;  // each with a line
constexpr int kMaxRefusals = 1000;  // then the job is taken for one that means it
constexpr char kStackOf[] = "stack of thread ";
// A call is handed over between two turns when one ends in time.
constexpr absl::Duration kQuietWait = absl::Seconds(10);
constexpr absl::Duration kHandOverAnswer = absl::Seconds(13);  // kQuietWait and some
// The store gives a successor 5 s from our pause.
constexpr absl::Duration kSuccessorSilent = absl::Seconds(6);
// A program that never enters its room has taken over all the same.
constexpr absl::Duration kEnterAfterTakeOver = absl::Seconds(2);
constexpr absl::Duration kFreezeAfter = absl::Seconds(12);  // a lease
constexpr size_t kMaxCheckpoint = 256 << 10;
constexpr size_t kMaxOutputLine = 4 << 10;
constexpr size_t kMaxToolCalls = 64;
constexpr absl::Duration kToolsWait = absl::Seconds(4);  // until a job starts without some
constexpr size_t kMaxToolBytes = 256 << 10;              // of what MCP servers describe
constexpr int64_t kBetweenStallsUs = 200'000;            // each is an event in the store
constexpr double kLinesPerSecond = 200;  // of one job; what is over it is dropped and counted
constexpr double kLinesAtOnce = 2000;
constexpr size_t kMaxFields = 32;
constexpr size_t kMaxFieldBytes = 1 << 10;
constexpr char kOutput[] = "output";  // sources of lines
constexpr char kLog[] = "log";
constexpr char kServer[] = "server";

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

// CPU time of a process and all its threads; nothing when it is gone.
std::optional<double> CpuSeconds(pid_t pid) {
  std::FILE* file = std::fopen(fmt::format("/proc/{}/stat", pid).c_str(), "re");
  if (file == nullptr) return std::nullopt;
  char text[1024];
  const size_t got = std::fread(text, 1, sizeof(text) - 1, file);
  std::fclose(file);
  text[got] = '\0';
  const char* const after_name = std::strrchr(text, ')');
  unsigned long long user = 0;
  unsigned long long system = 0;
  if (after_name == nullptr ||
      std::sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                  &system) != 2) {
    return std::nullopt;
  }
  return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// "stack of thread 7: 0x… 0x…" with names: the job has our code at our addresses.
std::string WithNames(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == line.npos) return std::string(line);
  std::string result(line.substr(0, colon + 1));
  for (const std::string& word : Split(Trim(line.substr(colon + 1)), ' ')) {
    char name[160];
    const auto address = std::strtoull(word.c_str(), nullptr, 16);
    // A return address may stand behind the end of its function.
    const bool known =
        absl::Symbolize(reinterpret_cast<const void*>(address - 1), name, sizeof(name));  // NOLINT
    result += fmt::format("{} {}", result.back() == ':' ? "" : " <", known ? name : word.c_str());
  }
  return result;
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

log::Level LevelOf(const std::string& name) {
  if (name == "debug") return log::Level::kDebug;
  if (name == "warn") return log::Level::kWarn;
  if (name == "error") return log::Level::kError;
  return log::Level::kInfo;
}

// Text that a message may carry, whatever bytes a job wrote.
std::string ValidUtf8(std::string_view text) {
  std::string result(text);
  if (IsValidUtf8(result)) return result;
  for (char& c : result) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return result;
}

const char* NameOf(log::Level level) {
  constexpr const char* kNames[] = {"debug", "info", "warn", "error"};
  return kNames[static_cast<int>(level)];
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
  *self_ = nullptr;
  for (auto& [id, cancelled] : tool_calls_) cancelled->store(true);
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
  SendWithTools(std::move(message));
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
  LookUpTools();
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
  absl::StatusOr<tools::ToolSet> tools = tools::ToolSet::FromDefinition(definition_json);
  if (!tools.ok()) log_.Warn("tools not usable", {{"error", Message(tools.status())}});
  tools_ = std::make_shared<tools::ToolSet>(tools.ok() ? *std::move(tools) : tools::ToolSet());
  absl::StatusOr<std::vector<tools::McpUse>> mcp = tools::McpUse::FromDefinition(definition_json);
  if (!mcp.ok()) log_.Warn("MCP servers not usable", {{"error", Message(mcp.status())}});
  mcp_ = mcp.ok() ? *std::move(mcp) : std::vector<tools::McpUse>();
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
  // The caller stopped in the middle: nothing follows that would take along what was said last.
  const bool spoken = waiting_frames_ > 0 && loud_us_ >= waiting_since_us_;
  if (spoken && now - loud_us_ > 2 * Micros(kFrame)) {
    waiting_frames_ = 0;
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
      if (message.stt().has_end_utterance()) utterance_over_ = true;
      return streams_->OnStt(message.stt());
    case jobv1::FromJob::kLlm:
      return streams_->OnLlm(message.llm());
    case jobv1::FromJob::kTts:
      return streams_->OnTts(message.tts());
    case jobv1::FromJob::kRealtime:
      return streams_->OnRealtime(message.realtime());
    case jobv1::FromJob::kToolCall:
      return OnToolCall(message.tool_call());
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

// ---- what it was refused ----

void JobProcess::OnReport() {
  absl::StatusOr<supervise::UniqueFd> listener = supervise::ReceiveListener(report_fd_.get());
  if (absl::IsUnavailable(listener.status())) return;
  report_watcher_.reset();
  report_fd_.Reset();
  if (!listener.ok()) {        // refused all the same
    static bool said = false;  // loop thread only
    if (absl::IsFailedPrecondition(listener.status()) && !std::exchange(said, true)) {
      around_.log.Warn("what jobs are refused is not noted on this host",
                       {{"error", Message(listener.status())}});
    }
    return;
  }
  report_fd_ = *std::move(listener);
  report_watcher_ = std::make_unique<event::FdWatcher>(*around_.loop, report_fd_.get());
  report_watcher_->Start(true, false, [this](bool, bool hung_up) {
    OnRefusal();
    if (hung_up) report_watcher_->Stop();
  });
}

void JobProcess::OnRefusal() {
  const bool may_execute = around_.config.executes && !executed_;
  const auto refusal = supervise::AnswerRefusal(report_fd_.get(), may_execute);
  if (!refusal.has_value()) return;
  if (refusal->error == 0) {
    executed_ = true;
    return;
  }
  around_.metrics.refusals.Increment();
  if (++refusals_ <= kNotedRefusals) {
    Say(log::Level::kWarn, kServer, "the job was refused a system call",
        {{"call", refusal->call}, {"errno", strerrorname_np(refusal->error)}});
  }
  if (refusals_ == kMaxRefusals) {
    Kill(parley::dispatch::v1::JOB_REASON_LIMIT_EXCEEDED,
         fmt::format("tried {} system calls that jobs may not do, {} last", refusals_,
                     refusal->call));
  }
}

void JobProcess::OnLog(const jobv1::LogLine& line) {
  if (!MaySay()) return;
  std::vector<log::Field> fields;
  for (const auto& [key, value] : line.fields()) {
    if (fields.size() >= kMaxFields) break;
    fields.emplace_back(key.substr(0, kMaxFieldBytes), value.substr(0, kMaxFieldBytes));
  }
  Say(LevelOf(line.level()), kLog, std::string_view(line.message()).substr(0, kMaxOutputLine),
      fields);
}

void JobProcess::OnTurn(const jobv1::TurnReport& turn) {
  AgentServerMetrics& metrics = around_.metrics;
  if (turn.interrupted()) return;  // nothing was heard of it: its times say nothing
  metrics.turn_endpointing.Observe(turn.endpointing_ms() / 1e3);
  metrics.turn_transcript.Observe(turn.transcript_ms() / 1e3);
  metrics.turn_llm.Observe(turn.llm_ms() / 1e3);
  metrics.turn_tts.Observe(turn.tts_ms() / 1e3);
  metrics.turn_output.Observe(turn.output_ms() / 1e3);
  metrics.turn_total.Observe(turn.total_ms() / 1e3);
  if (around_.tracer.enabled()) RecordTurn(turn);
  if (!MaySay()) return;
  Say(log::Level::kDebug, kServer, "turn answered",
      {{"endpointing_ms", turn.endpointing_ms()},
       {"transcript_ms", turn.transcript_ms()},
       {"llm_ms", turn.llm_ms()},
       {"tts_ms", turn.tts_ms()},
       {"output_ms", turn.output_ms()},
       {"total_ms", turn.total_ms()},
       {"tool_calls", turn.tool_calls()}});
}

void JobProcess::OnStalled(const jobv1::Stalled& stalled) {
  prometheus::Counter* const counter = around_.metrics.Stalls(stalled.stage(), stalled.given_up());
  if (counter == nullptr || !MaySay()) return;
  counter->Increment();
  Say(log::Level::kWarn, kServer,
      stalled.given_up() ? "a stage of the conversation was given up"
                         : "a stage of the conversation is slow",
      {{"stage", stalled.stage()},
       {"detail", std::string_view(stalled.detail()).substr(0, kMaxFieldBytes)},
       {"waited_ms", stalled.waited_ms()}});
  const int64_t now_us = around_.loop->NowMicros();
  if (now_us - stall_told_us_ < kBetweenStallsUs) return;
  stall_told_us_ = now_us;
  host_.OnJobStalled(*this, stalled);
}

// Its standard output and error, line by line.
bool JobProcess::OnOutput() {
  char buffer[8192];
  const ssize_t got = read(output_fd_.get(), buffer, sizeof(buffer));
  if (got <= 0) {
    if (got == 0) output_watcher_->Stop();
    return false;
  }
  for (const char c : std::string_view(buffer, static_cast<size_t>(got))) {
    if (c != '\n') output_line_.push_back(c);
    if (c == '\n' || output_line_.size() >= kMaxOutputLine) {
      LogOutput(output_line_);
      output_line_.clear();
    }
  }
  return true;
}

void JobProcess::LogOutput(std::string_view line) {
  if (line.empty() || !MaySay()) return;
  if (dumping_ && line.rfind(kStackOf, 0) == 0) {
    return Say(log::Level::kError, kOutput, WithNames(line));
  }
  Say(log::Level::kInfo, kOutput, line);
}

// A job that writes without end must not keep its server from the others' audio.
bool JobProcess::MaySay() {
  const int64_t now = around_.loop->NowMicros();
  line_budget_ += static_cast<double>(now - line_budget_us_) / 1e6 * kLinesPerSecond;
  line_budget_ = std::min(line_budget_, kLinesAtOnce);
  line_budget_us_ = now;
  if (line_budget_ < 1) {
    ++lines_dropped_;
    around_.metrics.log_lines_dropped.Increment();
    return false;
  }
  line_budget_ -= 1;
  if (lines_dropped_ > 0) {
    Say(log::Level::kWarn, kServer, "lines dropped: the job writes too many",
        {{"lines", std::exchange(lines_dropped_, 0)}});
  }
  return true;
}

void JobProcess::Say(log::Level level, const char* source, std::string_view message,
                     const std::vector<log::Field>& fields) {
  log::Logger logger = log_;
  for (const log::Field& field : fields) logger = logger.With({field});
  if (source == kOutput) {
    logger.Write(level, "job output", {{"line", message}});
  } else {
    logger.Write(level, message, {});
  }
  if (!assigned_) return;
  JobLogs::JobLogLine line;
  line.set_attempt(attempt_);
  line.set_level(NameOf(level));
  line.set_source(source);
  line.set_message(ValidUtf8(message));
  for (const log::Field& field : fields)
    (*line.mutable_fields())[ValidUtf8(field.key)] = ValidUtf8(field.value);
  around_.logs.Append(key_.job_id, std::move(line));
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
  Send(message);
}

void JobProcess::OnRoomAudio(const roomv1::SessionFrame& frame) {
  jobv1::AudioIn& audio = *audio_in_.mutable_audio();
  audio.set_track_number(frame.track_number());
  audio.set_codec(frame.codec());
  audio.set_timestamp(frame.timestamp());
  audio.set_level(frame.level());
  audio.mutable_data()->assign(frame.data());
  const bool wait = MayWait(frame);
  // What was said before the job was there comes in one go, and none of it is late.
  const bool early = around_.loop->NowMicros() - joined_us_ < Micros(kEarlyFor);
  if (!socket_->SendFresh(audio_in_, wait, early)) around_.metrics.late_in.Increment();
}

// How many frames a job wakes up for. One that is not of the kind that waits takes along what does.
bool JobProcess::MayWait(const roomv1::SessionFrame& frame) {
  const int64_t now_us = around_.loop->NowMicros();
  const uint32_t track = frame.track_number();
  // Senders that know no level say the lowest, or none at all.
  if (frame.level() > 0 && frame.level() < kLevelUnknown &&
      levels_of_.size() < kMaxTracksWithLevels) {
    levels_of_.insert(track);
  }
  const bool known = levels_of_.contains(track);
  const bool silent = utterance_over_ || now_us - loud_us_ >= Micros(kQuietFor);
  int together = 1;
  if (!known || frame.level() < kQuietLevel) {
    if (silent) loud_frames_ = 0;
    utterance_over_ = false;
    loud_us_ = now_us;
    if (known && ++loud_frames_ > kFirstSpoken) together = kSpokenFrames;
  } else if (silent) {
    together = kQuietFrames;
  }
  if (waiting_frames_ == 0) waiting_since_us_ = now_us;
  const bool soon = now_us - waiting_since_us_ < Micros(kFrame) * together - Micros(kFrame) / 2;
  if (++waiting_frames_ < together && soon) return true;
  waiting_frames_ = 0;
  return false;
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
  if (state_ == State::kKilled || socket_->Send(message)) return;
  if (socket_->backlog() == 0) return;  // it is gone; its exit tells the rest
  Kill(parley::dispatch::v1::JOB_REASON_HUNG, "the job does not read its socket");
}

// ---- its tools ----

// Before it takes over: nobody is to wait for them then.
void JobProcess::LookUpTools() {
  auto uses = tools::McpUse::FromDefinition(held_->definition_json());
  if (!uses.ok() || uses->empty()) return;
  (void)around_.list_threads.Post(
      [hub = around_.mcp, uses = *std::move(uses), project = held_->assignment().project()] {
        for (const tools::McpUse& use : uses) (void)hub->Tools(project, use);
      });
}

void JobProcess::SendWithTools(jobv1::ToJob assignment) {
  if (mcp_.empty()) return Send(assignment);
  const absl::Time end = absl::Now() + kToolsWait;
  const bool queued = around_.list_threads.Post([loop = around_.loop, self = self_,
                                                 hub = around_.mcp, uses = mcp_, project = project_,
                                                 end, assignment]() mutable {
    std::vector<absl::StatusOr<std::vector<tools::McpTool>>> offered;
    for (tools::McpUse& use : uses) {
      use.timeout = std::min(use.timeout, end - absl::Now());
      offered.push_back(hub->Tools(project, use));
    }
    loop->Post([self, assignment = std::move(assignment), offered = std::move(offered)]() mutable {
      if (*self != nullptr) (*self)->OnTools(std::move(assignment), offered);
    });
  });
  if (queued) return;
  Say(log::Level::kWarn, kServer, "no tools of MCP servers: too many jobs ask for theirs");
  Send(assignment);
}

// Without one of them a call is still a call.
void JobProcess::OnTools(jobv1::ToJob assignment,
                         const std::vector<absl::StatusOr<std::vector<tools::McpTool>>>& offered) {
  size_t bytes = 0;
  for (size_t i = 0; i < offered.size(); ++i) {
    const tools::McpUse& use = mcp_[i];
    if (!offered[i].ok()) {
      around_.metrics.tool_errors.Increment();
      Say(log::Level::kWarn, kServer, "an MCP server offers no tools",
          {{"server", use.name.empty() ? use.url : use.name},
           {"error", Message(offered[i].status())}});
      continue;
    }
    for (const tools::McpTool& tool : *offered[i]) {
      bytes += tool.description.size() + tool.parameters_json.size();
      if (bytes > kMaxToolBytes || !mcp_tools_.try_emplace(tool.name, i).second) continue;
      jobv1::ServerTool& out = *assignment.mutable_assignment()->add_tools();
      out.set_name(tool.name);
      out.set_description(ValidUtf8(tool.description));
      out.set_parameters_json(tool.parameters_json);
      out.set_timeout_ms(static_cast<int32_t>(absl::ToInt64Milliseconds(use.timeout)));
      for (const std::string& agent : use.agents) out.add_agents(agent);
    }
  }
  Send(assignment);
}

void JobProcess::OnToolCall(const jobv1::ToolCall& call) {
  const uint32_t id = call.call();
  const auto running = tool_calls_.find(id);
  if (call.cancel()) {
    if (running != tool_calls_.end()) running->second->store(true);
    return;
  }
  if (running != tool_calls_.end()) return;
  if (tool_calls_.size() >= kMaxToolCalls) {
    return OnToolResult(id, call.name(), ResourceExhausted("too many tools run at the same time"));
  }
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  tool_calls_[id] = cancelled;
  const auto reach =
      around_.config.tools_allow_loopback ? http::Reach::kLoopbackToo : http::Reach::kPublicOnly;
  const auto offered = mcp_tools_.find(call.name());
  const bool remote = !tools_->Has(call.name()) && offered != mcp_tools_.end();
  const bool queued = around_.tool_threads.Post(
      [loop = around_.loop, self = self_, http = around_.http, tools = tools_, cancelled, call,
       reach, hub = around_.mcp, project = project_,
       use = remote ? mcp_[offered->second] : tools::McpUse(), remote,
       &seconds = around_.metrics.tool_seconds, tracer = around_.tracer, parent = span_.context()] {
        trace::Span span = tracer.Start("tool", trace::Kind::kClient, parent);
        const TraceScope scope(span.context());
        span.Set("tool", call.name());
        const int64_t start = loop->NowMicros();
        const auto stop = [&] { return cancelled->load(); };
        absl::StatusOr<std::string> result =
            remote ? hub->Call(project, use, call.name(), call.arguments_json(), use.timeout, stop)
                   : tools->Run(*http, call.name(), call.arguments_json(), reach,
                                absl::Milliseconds(call.timeout_ms()), stop);
        span.Fail(result.status());
        span.End();
        seconds.Observe(static_cast<double>(loop->NowMicros() - start) / 1e6);
        loop->Post([self, id = call.call(), name = call.name(), result = std::move(result)] {
          if (*self != nullptr) (*self)->OnToolResult(id, name, result);
        });
      });
  if (queued) return;
  OnToolResult(id, call.name(), ResourceExhausted("the agent server runs too many tools already"));
}

void JobProcess::OnToolResult(uint32_t call, const std::string& name,
                              const absl::StatusOr<std::string>& result) {
  tool_calls_.erase(call);
  jobv1::ToJob message;
  message.mutable_tool_result()->set_call(call);
  message.mutable_tool_result()->set_is_error(!result.ok());
  message.mutable_tool_result()->set_output(result.ok() ? *result
                                                        : std::string(Message(result.status())));
  if (!result.ok()) {
    around_.metrics.tool_errors.Increment();
    Say(log::Level::kWarn, kServer, "a tool failed",
        {{"tool", name}, {"error", std::string(Message(result.status()))}});
  }
  Send(message);
}

}  // namespace parley::agent
