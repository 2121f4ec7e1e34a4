#include "agent/console/view.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace parley::agent {
namespace {

// -60 dBov and less is empty, 0 is full.
std::string Bar(float dbov) {
  constexpr int kCells = 12;
  const int filled =
      std::clamp(static_cast<int>(std::lround((dbov + 60) / 60 * kCells)), 0, kCells);
  return std::string(static_cast<size_t>(filled), '#') +
         std::string(static_cast<size_t>(kCells - filled), ' ');
}

}  // namespace

View::View() : terminal_(isatty(STDOUT_FILENO) != 0) {}

View::~View() {
  if (meter_shown_) fmt::print("\r\033[K");
}

void View::Line(const std::string& text) {
  fmt::print("{}{}\n", meter_shown_ ? "\r\033[K" : "", text);
  meter_shown_ = false;
  std::fflush(stdout);
}

void View::Said(const char* who, const std::string& text) {
  Line(fmt::format("{:<6} {}", std::string(who) + ":", text));
}

void View::Log(const parley::job::v1::LogLine& line) {
  std::string text = fmt::format("  [{}] {}", line.level(), line.message());
  for (const auto& [key, value] : line.fields()) text += fmt::format(" {}={}", key, value);
  Line(text);
}

void View::Turn(const parley::job::v1::TurnReport& turn) {
  totals_ms_.push_back(turn.total_ms());
  Line(fmt::format(
      "  [{:.0f} ms] endpointing {:.0f}, transcript {:.0f}, model {:.0f}, voice {:.0f}, "
      "output {:.0f}{}",
      turn.total_ms(), turn.endpointing_ms(), turn.transcript_ms(), turn.llm_ms(), turn.tts_ms(),
      turn.output_ms(), turn.interrupted() ? "; interrupted" : ""));
}

void View::Note(const std::string& text) { Line("  " + text); }

void View::Meter(float person_dbov, float agent_dbov, const std::string& state,
                 const std::string& partial) {
  if (!terminal_) return;
  constexpr size_t kPartial = 40;
  const size_t from = partial.size() - std::min(partial.size(), kPartial);
  fmt::print("\r\033[Kyou [{}]  agent [{}]  {}  {}", Bar(person_dbov), Bar(agent_dbov), state,
             partial.substr(from));
  std::fflush(stdout);
  meter_shown_ = true;
}

void View::Sum() {
  if (totals_ms_.empty()) return;
  std::sort(totals_ms_.begin(), totals_ms_.end());
  Line(
      fmt::format("  {} turns; from your last word to the agent's first: median {:.0f} ms, worst "
                  "{:.0f} ms",
                  totals_ms_.size(), totals_ms_[totals_ms_.size() / 2], totals_ms_.back()));
}

}  // namespace parley::agent
