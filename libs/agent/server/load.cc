#include "agent/server/load.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/clock.h"

namespace parley::agent {
namespace {

constexpr size_t kWindow = 5;

// Cores granted by cgroup v2, if they are limited: cpu.max holds "quota period" or "max period".
std::optional<double> CgroupCores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return std::nullopt;
  return std::atof(quota.c_str()) / period;
}

std::optional<double> CgroupCpuSeconds() {
  std::ifstream file("/sys/fs/cgroup/cpu.stat");
  std::string key;
  for (double value = 0; file >> key >> value;) {
    if (key == "usage_usec") return value / 1e6;
  }
  return std::nullopt;
}

}  // namespace

LoadMeter::LoadMeter() : last_(Read()) {}

std::optional<LoadMeter::Times> LoadMeter::Read() const {
  const double now = static_cast<double>(Clock::Real().MonotonicMicros()) / 1e6;
  if (const auto cores = CgroupCores(); cores.has_value() && *cores > 0) {
    const auto used = CgroupCpuSeconds();
    if (used.has_value()) return Times{*used, now * *cores};
  }
  // cpu  user nice system idle iowait irq softirq steal …
  std::ifstream file("/proc/stat");
  std::string name;
  double values[8] = {};
  file >> name;
  for (double& value : values) file >> value;
  if (!file) return std::nullopt;
  double total = 0;
  for (double value : values) total += value;
  const double idle = values[3] + values[4];
  return Times{total - idle, total};
}

double LoadMeter::Sample() {
  const std::optional<Times> now = Read();
  if (now.has_value() && last_.has_value() && now->total > last_->total) {
    const double load = (now->busy - last_->busy) / (now->total - last_->total);
    recent_.push_back(std::clamp(load, 0.0, 1.0));
    if (recent_.size() > kWindow) recent_.pop_front();
  }
  last_ = now;
  return Median(recent_);
}

double Median(std::deque<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace parley::agent
