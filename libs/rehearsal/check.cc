#include "rehearsal/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace parley::rehearsal {
namespace {

// From its beginning; anywhere in it where the pattern begins with "*".
bool Matches(const Expectation& one, const Outcome::Line& line) {
  if (!one.line.starts_with('*')) return line.text.starts_with(one.line);
  return line.text.find(std::string_view(one.line).substr(1)) != std::string::npos;
}

bool InRange(const Expectation& one, const Outcome::Line& line) {
  return line.at_us >= one.from_us && (!one.to_us || line.at_us <= *one.to_us) &&
         Matches(one, line);
}

// When the line did come, for people to read.
std::string Instead(const Expectation& one, const Outcome& outcome) {
  std::string times;
  int count = 0;
  for (const Outcome::Line& line : outcome.log) {
    if (!Matches(one, line)) continue;
    if (++count <= 5) times += fmt::format("{}{}", times.empty() ? "" : ", ", line.at_us / 1000);
  }
  if (count == 0) return "it never came";
  return fmt::format("it came at {}{} ms", times, count > 5 ? ", …" : "");
}

}  // namespace

void Check(const Scenario& scenario, Outcome& outcome) {
  const auto fail = [&](int line, const std::string& what) {
    outcome.failures.push_back(fmt::format("{}:{}: {}", scenario.source, line, what));
  };
  size_t next = 0;  // in the log, for what is expected in order
  for (const Expectation& one : scenario.expect) {
    if (one.count) {
      const auto count =
          std::count_if(outcome.log.begin(), outcome.log.end(),
                        [&](const Outcome::Line& line) { return InRange(one, line); });
      if (count != *one.count) {
        fail(one.source_line,
             fmt::format("expected {}, but {}", one.Text(), Instead(one, outcome)));
      }
      continue;
    }
    if (one.at_us) {
      const bool found =
          std::any_of(outcome.log.begin(), outcome.log.end(), [&](const Outcome::Line& line) {
            return Matches(one, line) && std::abs(line.at_us - *one.at_us) <= one.within_us;
          });
      if (!found) {
        fail(one.source_line,
             fmt::format("expected {}, but {}", one.Text(), Instead(one, outcome)));
      }
      continue;
    }
    size_t at = next;
    while (at < outcome.log.size() && !InRange(one, outcome.log[at])) ++at;
    if (at == outcome.log.size()) {
      fail(one.source_line, fmt::format("expected {} after what stands before it, but {}",
                                        one.Text(), Instead(one, outcome)));
    } else {
      next = at + 1;
    }
  }
  if (!scenario.history || *scenario.history == outcome.history) return;
  std::string is;
  for (const std::string& line : outcome.history) is += "\n    " + line;
  std::string should;
  for (const std::string& line : *scenario.history) should += "\n    " + line;
  outcome.failures.push_back(fmt::format("{}: the history should be{}\n  but is{}", scenario.source,
                                         should.empty() ? " empty" : should,
                                         is.empty() ? " empty" : is));
}

}  // namespace parley::rehearsal
