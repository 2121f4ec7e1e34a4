// What a job writes, reports and is refused: into its log and ours.
#include <absl/debugging/symbolize.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/server/job_process.h"
#include "agent/server/text.h"
#include "base/status.h"
#include "base/strings.h"
#include "supervise/refusals.h"

namespace parley::agent {
namespace {

namespace jobv1 = parley::job::v1;

constexpr int kNotedRefusals = 20;  // each with a line
constexpr int kMaxRefusals = 1000;  // then the job is taken for one that means it
constexpr char kStackOf[] = "stack of thread ";
constexpr size_t kMaxOutputLine = 4 << 10;
constexpr int64_t kBetweenStallsUs = 200'000;  // each is an event in the store
constexpr double kLinesPerSecond = 200;        // of one job; what is over it is dropped and counted
constexpr double kLinesAtOnce = 2000;
constexpr size_t kMaxFields = 32;
constexpr size_t kMaxFieldBytes = 1 << 10;

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

log::Level LevelOf(const std::string& name) {
  if (name == "debug") return log::Level::kDebug;
  if (name == "warn") return log::Level::kWarn;
  if (name == "error") return log::Level::kError;
  return log::Level::kInfo;
}

const char* NameOf(log::Level level) {
  constexpr const char* kNames[] = {"debug", "info", "warn", "error"};
  return kNames[static_cast<int>(level)];
}

}  // namespace

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

}  // namespace parley::agent
