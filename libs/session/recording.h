#pragma once
// A session on paper: everything that came to it, with times. Whoever has the paper can have the
// session decide again, to the byte, or with other options.
//
// One JSON value a line: first what the session was made of, then each event, last (when the
// session came to its end) a sum of what it decided. Recordings hold what people said: keep them
// like it.
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "session/commands.h"
#include "session/events.h"
#include "session/types.h"

namespace parley::session {

inline constexpr size_t kMaxRecordingBytes = 64 << 20;

// Writes a recording, line by line, each with its line feed.
class Recorder {
 public:
  using Sink = std::function<void(std::string_view line)>;
  explicit Recorder(Sink sink) : sink_(std::move(sink)) {}

  void Begin(const Options& options, const std::vector<Character>& agents);
  void Restored(std::string_view checkpoint);
  void Started(int64_t now_us);
  void Happened(const Event& event, int64_t now_us);
  void Ticked(int64_t now_us);
  void Decided(int64_t now_us, const Command& command);

 private:
  Sink sink_;
  int64_t started_us_ = 0;
  uint64_t decisions_ = 0;
  uint64_t hash_ = 0xcbf29ce484222325;
};

struct Replayed {
  std::vector<std::string> log;  // see decision_log.h
  bool complete = false;         // the recording goes to the session's end
  bool identical = false;        // … and the same was decided
  int64_t duration_us = 0;       // of the session
};

// Runs a recording again. `changes`: options by their name in the first line, as durations
// ("300ms"), numbers, true, false or a kind of turn detection.
//   InvalidArgument  not a recording, or no such option or value
absl::StatusOr<Replayed> Replay(std::string_view recording,
                                const std::map<std::string, std::string>& changes = {});

}  // namespace parley::session
