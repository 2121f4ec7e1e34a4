#include "session/speech.h"

namespace parley::session {

TurnReport MakeReport(const Speech& speech, bool interrupted) {
  const AnswerTimes& times = speech.times;
  TurnReport report{
      .turn_id = speech.turn_id, .interrupted = interrupted, .tool_calls = speech.tool_calls};
  int64_t last_us = times.speech_end_us;
  const auto until = [&last_us](int64_t reached_us) {
    if (reached_us <= last_us) return int64_t{0};  // not reached, or at once
    const int64_t part_us = reached_us - last_us;
    last_us = reached_us;
    return part_us;
  };
  report.endpointing_us = until(times.decided_us);
  report.transcript_us = until(times.committed_us);
  report.llm_us = until(times.first_text_us);
  report.tts_us = until(times.first_audio_us);
  report.output_us = until(times.first_frame_us);
  report.total_us = last_us - times.speech_end_us;
  return report;
}

}  // namespace parley::session
