#pragma once
// Patterns of rules: RE2 with slots, matched against what a recogniser wrote.
#include <absl/status/statusor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace re2 {
class RE2;
}

namespace parley::speech {

inline constexpr size_t kMaxPatternBytes = 2 << 10;

// What a rule says: what people type and what recognisers write, made alike. Lower case;
// punctuation becomes space, apostrophes and hyphens inside words stay; one space between words.
std::string NormalisedSpeech(std::string_view text);

// "(how much|price|rate) .* {room:single|double|suite}": RE2 syntax; `{name:alternatives}` captures
// a slot, `{name}` captures any words. Matches anywhere in the normalised text, ignoring case, and
// at word borders; " .* " also matches nothing in between. Immutable, thread-safe.
class Pattern {
 public:
  // InvalidArgument says what is wrong: syntax, a slot named twice, larger than kMaxPatternBytes, a
  // pattern that compiles to more than 256 KiB (one "made to explode").
  static absl::StatusOr<Pattern> Compile(std::string_view pattern);
  ~Pattern();
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;

  // The slots, by name, where the text matches. `normalised` as NormalisedSpeech makes it.
  std::optional<std::map<std::string, std::string>> Match(std::string_view normalised) const;
  const std::vector<std::string>& slots() const { return slots_; }

 private:
  Pattern();
  std::unique_ptr<re2::RE2> regex_;
  std::vector<std::string> slots_;
};

}  // namespace parley::speech
