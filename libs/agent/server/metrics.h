#pragma once
#include <map>
#include <string>
#include <utility>

#include "metrics/metrics.h"
#include "parley/dispatch/v1/types.pb.h"

namespace parley::agent {

// Every metric of the agent server.
struct AgentServerMetrics {
  explicit AgentServerMetrics(prometheus::Registry& registry);

  prometheus::Counter& Ended(parley::dispatch::v1::JobReason reason);
  // Null for a stage that this version does not know.
  prometheus::Counter* Stalls(const std::string& stage, bool given_up);

  prometheus::Gauge& slots_used;        // parley_worker_slots{state="used"}
  prometheus::Gauge& slots_free;        // parley_worker_slots{state="free"}
  prometheus::Gauge& warm_processes;    // parley_worker_warm_processes
  prometheus::Gauge& load_ratio;        // parley_worker_load_ratio
  prometheus::Gauge& connected;         // parley_worker_broker_connected
  prometheus::Counter& reconnects;      // parley_worker_broker_reconnects_total
  prometheus::Counter& start_failures;  // parley_worker_start_failures_total
  prometheus::Histogram& launch;        // parley_worker_job_launch_seconds: assigned → entrypoint
  prometheus::Histogram& handover_gap;  // parley_worker_handover_gap_seconds: paused → in the room
  prometheus::Counter& handovers_failed;   // parley_worker_handovers_failed_total
  prometheus::Counter& frames_in;          // parley_worker_media_frames_total{direction="in"}
  prometheus::Counter& frames_out;         // parley_worker_media_frames_total{direction="out"}
  prometheus::Counter& late_in;            // parley_worker_media_late_frames_total{direction="in"}
  prometheus::Counter& late_out;           // parley_worker_media_late_frames_total{direction="out"}
  prometheus::Counter& media_breaks;       // parley_worker_media_stream_breaks_total
  prometheus::Histogram& tool_seconds;     // parley_worker_tool_seconds
  prometheus::Counter& tool_errors;        // parley_worker_tool_errors_total
  prometheus::Counter& refusals;           // parley_worker_job_refused_calls_total
  prometheus::Counter& log_lines_dropped;  // parley_worker_job_log_lines_dropped_total
  prometheus::Counter& recording_bytes;    // parley_worker_recording_bytes_total
  prometheus::Counter& recording_bytes_dropped;  // parley_worker_recording_bytes_dropped_total
  // parley_worker_turn_seconds{part}: where the time between question and answer goes
  prometheus::Histogram& turn_endpointing;
  prometheus::Histogram& turn_transcript;
  prometheus::Histogram& turn_llm;
  prometheus::Histogram& turn_tts;
  prometheus::Histogram& turn_output;
  prometheus::Histogram& turn_total;

 private:
  std::map<int, prometheus::Counter*> ended_;  // parley_worker_jobs_ended_total{reason}
  // parley_worker_stalls_total{stage,outcome="slow"|"given_up"}
  std::map<std::pair<std::string, bool>, prometheus::Counter*> stalls_;
};

}  // namespace parley::agent
