#include "session/end_of_turn.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace parley::session {
namespace {

// As in scripts/train-turn-model.
constexpr size_t kSlots = 1 << 12;
constexpr double kScale = 32;
// Whoever dictates pauses after each group, and words do not tell which is the last.
constexpr double kDictated = 0.1;
constexpr size_t kMaxTextBytes = 2'000;  // the end of a long transcript tells as much
constexpr std::array<int8_t, kSlots> kWeights = {
#include "session/end_of_turn_weights.inc"
};

constexpr auto kNumbers = std::to_array<std::string_view>(
    {"zero",    "oh",      "one",       "two",      "three",    "four",    "five",     "six",
     "seven",   "eight",   "nine",      "ten",      "eleven",   "twelve",  "thirteen", "fourteen",
     "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",  "thirty",   "forty",
     "fifty",   "sixty",   "seventy",   "eighty",   "ninety",   "hundred", "thousand", "double",
     "triple",  "alpha",   "bravo",     "charlie",  "delta",    "echo",    "foxtrot",  "golf",
     "hotel",   "india",   "juliet",    "kilo",     "lima",     "mike",    "november", "oscar",
     "papa",    "quebec",  "romeo",     "sierra",   "tango",    "uniform", "victor",   "whiskey",
     "zulu"});
// Words after which hardly anybody is done.
constexpr auto kDangling = std::to_array<std::string_view>(
    {"a",      "an",     "the",   "my",     "your",    "our",    "their",   "his",     "her",
     "its",    "to",     "of",    "with",   "for",     "from",   "in",      "on",      "at",
     "and",    "or",     "but",   "if",     "because", "that",   "which",   "who",     "when",
     "where",  "while",  "than",  "as",     "about",   "into",   "by",      "is",      "are",
     "am",     "was",    "were",  "be",     "been",    "i'm",    "you're",  "we're",   "they're",
     "it's",   "i",      "he",    "she",    "we",      "they",   "would",   "could",   "should",
     "can",    "will",   "do",    "does",   "did",     "have",   "has",     "had",     "not",
     "very",   "really", "more",  "some",   "any",     "every",  "no",      "i'd",     "i'll",
     "we'd",   "let's",  "maybe", "either", "until",   "since",  "without", "between", "around",
     "before", "after",  "under", "over",   "near",    "what's", "there's", "another", "whether",
     "how",    "why",    "dot",   "dash",   "slash"});
constexpr auto kFillers =
    std::to_array<std::string_view>({"um", "uh", "er", "erm", "hmm", "well", "like", "so"});
// What listeners say; a phrase of these alone is no turn.
constexpr auto kBackchannels = std::to_array<std::string_view>(
    {"mhm", "mm",  "mmhm",  "hm",   "hmm",     "uh",    "huh",    "yeah",
     "yep", "yes", "ok",    "okay", "alright", "right", "sure",   "ah",
     "aha", "oh",  "great", "good", "cool",    "nice",  "really", "exactly"});
constexpr auto kBackchannelPhrases = std::to_array<std::string_view>(
    {"i see", "got it", "all right", "of course", "very good", "that's right"});

template <size_t N>
bool Holds(const std::array<std::string_view, N>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// Words as recognisers write them: lower case, letters, digits and apostrophes.
std::vector<std::string> Tokens(std::string_view text) {
  if (text.size() > kMaxTextBytes) text.remove_prefix(text.size() - kMaxTextBytes);
  std::vector<std::string> tokens;
  bool inside = false;
  for (const unsigned char c : text) {
    const bool part = std::isalnum(c) != 0 || c == '\'';
    if (part && !inside) tokens.emplace_back();
    if (part) tokens.back() += static_cast<char>(std::tolower(c));
    inside = part;
  }
  return tokens;
}

char ClassOf(const std::string& token) {
  if (Holds(kNumbers, token) || std::isdigit(static_cast<unsigned char>(token[0])) != 0) return 'N';
  if (token.size() == 1 && token != "a" && token != "i") return 'L';
  return Holds(kFillers, token) ? 'F' : 'W';
}

size_t SlotOf(std::string_view name) {
  uint32_t value = 0x811c9dc5;
  for (const unsigned char byte : name) value = (value ^ byte) * 0x01000193;
  return (value ^ (value >> 15)) & (kSlots - 1);
}

std::string Masked(const std::string& token) {
  if (token == "^") return token;
  const char kind = ClassOf(token);
  return kind == 'N' || kind == 'L' ? std::string("#") + kind : token;
}

// Numbers and letters at the end.
size_t DictatedAtEnd(const std::vector<std::string>& tokens) {
  size_t run = 0;
  while (run < tokens.size()) {
    const char one = ClassOf(tokens[tokens.size() - 1 - run]);
    if (one != 'N' && one != 'L') break;
    ++run;
  }
  return run;
}

// What is to be seen in the words, summed up.
double Score(const std::vector<std::string>& tokens) {
  const size_t size = tokens.size();
  const std::string& last = tokens.back();
  const std::string before = Masked(size > 1 ? tokens[size - 2] : "^");
  const std::string third = Masked(size > 2 ? tokens[size - 3] : "^");
  const std::string masked = Masked(last);
  const char kind = ClassOf(last);
  const size_t run = DictatedAtEnd(tokens);
  const std::string dangling = Holds(kDangling, last) ? "1" : "0";
  const std::string count = std::to_string(std::min<size_t>(size, 12));
  const std::string capped = std::to_string(std::min<size_t>(run, 15));
  const std::string second = size > 1 ? tokens[1] : "^";
  const std::string suffix = kind == 'W' && dangling == "0"
                                 ? last.substr(last.size() - std::min<size_t>(last.size(), 3))
                                 : std::string("#");
  int sum = 0;
  for (const std::string& name :
       {std::string("b"), std::string("k") + kind, "1" + masked, "2" + before + " " + masked,
        "3" + third + " " + before + " " + masked, "p" + before, "n" + count, "nk" + count + kind,
        "d" + dangling, std::string("e") + kind + dangling + before, "f" + tokens[0],
        "g" + tokens[0] + " " + second, "h" + tokens[0] + " " + masked, "s" + suffix, "r" + capped,
        "t" + capped + (run == size ? "=" : "<")}) {
    sum += kWeights[SlotOf(name)];
  }
  return static_cast<double>(sum) / kScale;
}

}  // namespace

double EndOfTurn(std::string_view transcript) {
  const std::vector<std::string> tokens = Tokens(transcript);
  if (tokens.empty()) return 0;
  if (DictatedAtEnd(tokens) >= 2) return kDictated;
  return 1 / (1 + std::exp(-Score(tokens)));
}

int64_t PatienceUs(double probability, int64_t min_us, int64_t max_us) {
  // Above, the words sound finished; below, they cannot stand alone.
  constexpr double kDone = 0.6;
  constexpr double kOpen = 0.35;
  const double doubt = std::clamp((kDone - probability) / (kDone - kOpen), 0.0, 1.0);
  return min_us + static_cast<int64_t>(doubt * static_cast<double>(max_us - min_us));
}

bool IsBackchannel(std::string_view transcript, bool goes_on) {
  const std::vector<std::string> tokens = Tokens(transcript);
  // Longer ones are more than a nod.
  if (tokens.empty() || tokens.size() > 4) return false;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (Holds(kBackchannels, tokens[i])) continue;
    if (i + 1 < tokens.size() && Holds(kBackchannelPhrases, tokens[i] + " " + tokens[i + 1])) {
      ++i;
      continue;
    }
    const bool begins =
        std::any_of(kBackchannelPhrases.begin(), kBackchannelPhrases.end(),
                    [&](std::string_view phrase) { return phrase.starts_with(tokens[i] + " "); });
    if (goes_on && begins && i + 1 == tokens.size()) continue;
    return false;
  }
  return true;
}

}  // namespace parley::session
