#pragma once
// What the console shows: one line for each thing said, and while there is sound a line that moves
// below them.
#include <cstdint>
#include <string>
#include <vector>

#include "parley/job/v1/job.pb.h"

namespace parley::agent {

// One thread. Lines go to standard output; the meter, only where that is a terminal, to it too.
class View {
 public:
  View();
  ~View();

  void Said(const char* who, const std::string& text);
  void Log(const parley::job::v1::LogLine& line);
  // Parts of the time between the person's last word and the agent's first.
  void Turn(const parley::job::v1::TurnReport& turn);
  void Note(const std::string& text);
  // Both levels in dBov, and what the agent does. `partial`: what is understood so far.
  void Meter(float person_dbov, float agent_dbov, const std::string& state,
             const std::string& partial);
  // Median and worst of the turns.
  void Sum();

 private:
  void Line(const std::string& text);

  const bool terminal_;
  bool meter_shown_ = false;
  std::vector<double> totals_ms_;
};

}  // namespace parley::agent
