#include "agent/server/metrics.h"

#include <string>

namespace parley::agent {
namespace {

using parley::dispatch::v1::JobReason;

constexpr char kSlots[] = "parley_worker_slots";
constexpr char kSlotsHelp[] = "Job slots of this agent server by state";
constexpr char kFrames[] = "parley_worker_media_frames_total";
constexpr char kFramesHelp[] = "Audio frames carried between jobs and rooms";
constexpr char kLate[] = "parley_worker_media_late_frames_total";
constexpr char kLateHelp[] = "Audio frames dropped because they came too late to be of use";

prometheus::Histogram& Turn(prometheus::Registry& registry, const char* part) {
  return metrics::Histogram(registry, "parley_worker_turn_seconds",
                            "End of speech to first audio of the answer, by part",
                            {{"part", part}});
}

// "JOB_REASON_SHUTDOWN" → "SHUTDOWN"
std::string ReasonLabel(JobReason reason) {
  return parley::dispatch::v1::JobReason_Name(reason).substr(sizeof("JOB_REASON_") - 1);
}

}  // namespace

AgentServerMetrics::AgentServerMetrics(prometheus::Registry& registry)
    : slots_used(metrics::Gauge(registry, kSlots, kSlotsHelp, {{"state", "used"}})),
      slots_free(metrics::Gauge(registry, kSlots, kSlotsHelp, {{"state", "free"}})),
      warm_processes(metrics::Gauge(registry, "parley_worker_warm_processes",
                                    "Job processes that wait for an assignment")),
      load_ratio(metrics::Gauge(registry, "parley_worker_load_ratio",
                                "CPU load as reported to the broker, 0 to 1")),
      connected(metrics::Gauge(registry, "parley_worker_broker_connected",
                               "1 while registered with a broker")),
      reconnects(metrics::Counter(registry, "parley_worker_broker_reconnects_total",
                                  "Streams to a broker that broke")),
      start_failures(metrics::Counter(registry, "parley_worker_start_failures_total",
                                      "Job processes that died, or hung, before they had a job")),
      launch(metrics::Histogram(registry, "parley_worker_job_launch_seconds",
                                "Assignment received to entrypoint running")),
      handover_gap(metrics::Histogram(
          registry, "parley_worker_handover_gap_seconds",
          "Jobs taken over: from the other server's pause to the room, by both servers' clocks")),
      handovers_failed(metrics::Counter(registry, "parley_worker_handovers_failed_total",
                                        "Hand-overs of jobs of this server that were called off")),
      frames_in(metrics::Counter(registry, kFrames, kFramesHelp, {{"direction", "in"}})),
      frames_out(metrics::Counter(registry, kFrames, kFramesHelp, {{"direction", "out"}})),
      late_in(metrics::Counter(registry, kLate, kLateHelp, {{"direction", "in"}})),
      late_out(metrics::Counter(registry, kLate, kLateHelp, {{"direction", "out"}})),
      media_breaks(metrics::Counter(registry, "parley_worker_media_stream_breaks_total",
                                    "Streams to a room server that broke")),
      tool_seconds(metrics::Histogram(registry, "parley_worker_tool_seconds",
                                      "How long tools over HTTP took")),
      tool_errors(
          metrics::Counter(registry, "parley_worker_tool_errors_total", "Tool calls that failed")),
      refusals(metrics::Counter(registry, "parley_worker_job_refused_calls_total",
                                "System calls that jobs tried and may not do")),
      log_lines_dropped(metrics::Counter(registry, "parley_worker_job_log_lines_dropped_total",
                                         "Lines of jobs that came too fast to be kept")),
      recording_bytes(metrics::Counter(registry, "parley_worker_recording_bytes_total",
                                       "Recordings of calls, as written to disk")),
      recording_bytes_dropped(metrics::Counter(registry,
                                               "parley_worker_recording_bytes_dropped_total",
                                               "Recordings of calls that could not be kept")),
      turn_endpointing(Turn(registry, "endpointing")),
      turn_transcript(Turn(registry, "transcript")),
      turn_llm(Turn(registry, "llm")),
      turn_tts(Turn(registry, "tts")),
      turn_output(Turn(registry, "output")),
      turn_total(Turn(registry, "total")) {
  for (int value = parley::dispatch::v1::JobReason_MIN;
       value <= parley::dispatch::v1::JobReason_MAX; ++value) {
    if (!parley::dispatch::v1::JobReason_IsValid(value)) continue;
    ended_[value] = &metrics::Counter(registry, "parley_worker_jobs_ended_total",
                                      "Job processes that ended, by reason",
                                      {{"reason", ReasonLabel(static_cast<JobReason>(value))}});
  }
  for (const char* stage : {"recogniser", "model", "tool", "voice", "playout", "program"}) {
    for (const bool given_up : {false, true}) {
      stalls_[{stage, given_up}] =
          &metrics::Counter(registry, "parley_worker_stalls_total",
                            "Times a caller waited in silence for a stage that did not move",
                            {{"stage", stage}, {"outcome", given_up ? "given_up" : "slow"}});
    }
  }
}

prometheus::Counter* AgentServerMetrics::Stalls(const std::string& stage, bool given_up) {
  const auto it = stalls_.find({stage, given_up});
  return it == stalls_.end() ? nullptr : it->second;
}

prometheus::Counter& AgentServerMetrics::Ended(JobReason reason) {
  const auto it = ended_.find(reason);
  return *(it == ended_.end() ? ended_.begin()->second : it->second);
}

}  // namespace parley::agent
