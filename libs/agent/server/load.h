#pragma once
#include <cstdint>
#include <deque>
#include <optional>

namespace parley::agent {

// How busy the processors are that this process may use: those of the machine, or the share that
// its cgroup grants. Call Sample() about once a second, from one thread.
class LoadMeter {
 public:
  LoadMeter();
  // 0 to 1: the median of the last five intervals, so that a spike moves nothing.
  double Sample();

 private:
  struct Times {
    double busy = 0;   // CPU seconds used
    double total = 0;  // CPU seconds that there were
  };
  std::optional<Times> Read() const;

  std::optional<Times> last_;
  std::deque<double> recent_;
};

// The median; 0 when empty.
double Median(std::deque<double> values);

}  // namespace parley::agent
