#pragma once
// Engines by name: requests choose, operators decide what exists.
#include <absl/status/statusor.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace parley::speech {

// NotFound with reason UNKNOWN_ENGINE, naming the known ones (also as metadata `known`).
absl::Status UnknownEngine(std::string_view kind, std::string_view name,
                           const std::vector<std::string>& known);

// Filled at start, then only read: thread-safe from then on. Owns its engines.
template <typename Engine>
class EngineTable {
 public:
  // `kind` goes into errors: "speech-to-text", "text-to-speech", "language model".
  explicit EngineTable(std::string kind) : kind_(std::move(kind)) {}

  void Add(std::string name, std::unique_ptr<Engine> engine) {
    engines_[std::move(name)] = std::move(engine);
  }
  absl::StatusOr<Engine*> Find(std::string_view name) const {
    const auto it = engines_.find(name);
    if (it == engines_.end()) return UnknownEngine(kind_, name, names());
    return it->second.get();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, engine] : engines_) names.push_back(name);
    return names;
  }
  const std::map<std::string, std::unique_ptr<Engine>, std::less<>>& all() const {
    return engines_;
  }

 private:
  std::string kind_;
  std::map<std::string, std::unique_ptr<Engine>, std::less<>> engines_;
};

}  // namespace parley::speech
