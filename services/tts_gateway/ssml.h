#pragma once
// The part of W3C's Speech Synthesis Markup Language (1.1) that is spoken here.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <string>
#include <string_view>
#include <vector>

namespace parley {

inline constexpr size_t kMaxSsmlElements = 2000;
inline constexpr size_t kMaxSsmlDepth = 32;
inline constexpr absl::Duration kMaxSsmlPause = absl::Seconds(10);         // of one break
inline constexpr absl::Duration kMaxSsmlSilence = absl::Seconds(60);       // of a document's breaks
inline constexpr absl::Duration kSsmlParagraph = absl::Milliseconds(400);  // before a <p>

struct SsmlPiece {
  std::string text;      // plain; may be empty
  absl::Duration pause;  // before it
  double rate = 1;       // times the voice's own
  double pitch = 1;
};

// It is a document rather than words: begins, after white space, with <speak, <?xml or <!DOCTYPE.
bool IsSsml(std::string_view text);

// What a document says, in order. Elements: speak, p, s, break (time, strength), prosody (rate,
// pitch; its volume, range, contour and duration change nothing), sub, say-as (characters,
// spell-out, digits, telephone; anything else is said as it stands), and emphasis, phoneme, lang,
// w, token, mark, of which the text alone counts.
//   InvalidArgument  not well-formed, no UTF-8, a DOCTYPE (there are no entities but XML's own),
//                    another element, a value that cannot be read, a bound above exceeded
absl::StatusOr<std::vector<SsmlPiece>> ParseSsml(std::string_view document);

}  // namespace parley
