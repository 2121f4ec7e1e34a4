#pragma once
#include <absl/status/statusor.h>

#include <map>
#include <string>
#include <string_view>

namespace parley::job {

// What may run a job. Empty fields ask for nothing.
struct Selector {
  std::string deployment;
  std::map<std::string, std::string> labels;            // the worker must have all of them
  std::string preferred_region;                         // waited for 500 ms, then any
  std::map<std::string, std::string> preferred_labels;  // likewise

  bool operator==(const Selector&) const = default;
};

inline constexpr size_t kMaxSelectorBytes = 1024;  // in the form below

// One text per meaning: names the sub-queue. "-" when nothing is asked for; else
// `d=…&l.KEY=VALUE&r=…&p.KEY=VALUE`, keys in order, everything but letters, digits and `-_.` as
// %XX. InvalidArgument above kMaxSelectorBytes.
absl::StatusOr<std::string> SelectorText(const Selector& selector);
// The same without its preferences.
std::string RelaxedSelectorText(std::string_view text);
// InvalidArgument for what SelectorText would not write.
absl::StatusOr<Selector> ParseSelector(std::string_view text);

// Letters, digits and `-_.` stay, every other byte becomes %XX: for parts of keys.
std::string Escape(std::string_view text);
absl::StatusOr<std::string> Unescape(std::string_view text);

}  // namespace parley::job
