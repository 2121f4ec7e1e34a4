#pragma once
#include <absl/status/status.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace parley::speech {

// Why the engines of a fallback chain did not serve, and whether the next one should be asked.
class ChainErrors {
 public:
  // False when the error is the caller's own and would only be hidden by another engine.
  bool Add(std::string_view engine, const absl::Status& status);
  bool empty() const { return errors_.empty(); }
  void Clear() { errors_.clear(); }
  // What to answer when the chain is at its end: the one error, or Unavailable naming all of them.
  absl::Status Result() const;
  std::string Text() const;  // "deepgram: …; pocketsphinx: …"

 private:
  std::vector<std::pair<std::string, absl::Status>> errors_;
};

}  // namespace parley::speech
