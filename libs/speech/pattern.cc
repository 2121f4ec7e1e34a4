#include "speech/pattern.h"

#include <re2/re2.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace parley::speech {
namespace {

constexpr int64_t kMaxProgramBytes = 256 << 10;  // of RE2, forward and backward

bool IsWord(unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c >= 0x80; }

bool IsSlotName(std::string_view name) {
  if (name.empty() || name.size() > 63 || std::islower(static_cast<unsigned char>(name[0])) == 0)
    return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '_';
  });
}

// The end of a slot that starts at `open` ('{'), or npos where these braces are RE2's own.
size_t SlotEnd(std::string_view pattern, size_t open) {
  // Choices may hold RE2's own braces: {n:[0-9]{1,3}}.
  size_t close = open;
  int depth = 0;
  for (; close < pattern.size(); ++close) {
    if (pattern[close] == '{') ++depth;
    if (pattern[close] == '}' && --depth == 0) break;
  }
  if (close == pattern.size() || close == open + 1) return std::string_view::npos;
  const char first = pattern[open + 1];
  return std::isdigit(static_cast<unsigned char>(first)) != 0 || first == ','
             ? std::string_view::npos
             : close;
}

absl::StatusOr<std::string> Translate(std::string_view pattern, std::vector<std::string>& slots) {
  std::string regex = "(?i)";
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      regex += pattern.substr(i++, 2);
      continue;
    }
    // Words may stand between, or none: "price .* {room}" is also said as "price single".
    if (pattern.substr(i, 4) == " .* ") {
      regex += "\\b.*\\b";
      i += 3;
      continue;
    }
    if (pattern[i] == '{') {
      const size_t close = SlotEnd(pattern, i);
      if (close != std::string_view::npos) {
        const std::string_view slot = pattern.substr(i + 1, close - i - 1);
        const size_t colon = slot.find(':');
        const std::string_view name = slot.substr(0, colon);
        if (!IsSlotName(name)) {
          return InvalidArgument(
              "\"{}\" is no slot name: use lower-case letters, digits and _, at most 63", name);
        }
        if (std::find(slots.begin(), slots.end(), name) != slots.end())
          return InvalidArgument("the slot \"{}\" is there twice", name);
        slots.emplace_back(name);
        const std::string_view choices =
            colon == std::string_view::npos ? "[^ ]+(?: [^ ]+)*" : slot.substr(colon + 1);
        if (Trim(choices).empty()) return InvalidArgument("the slot \"{}\" has no choices", name);
        regex += fmt::format("\\b(?P<{}>{})\\b", name, choices);
        i = close;
        continue;
      }
    }
    regex += pattern[i];
  }
  return regex;
}

}  // namespace

std::string NormalisedSpeech(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool inside = i > 0 && i + 1 < text.size() &&
                        IsWord(static_cast<unsigned char>(text[i - 1])) &&
                        IsWord(static_cast<unsigned char>(text[i + 1]));
    // The typographic apostrophe, as phones type it.
    if (text.substr(i, 3) == "\u2019") {
      out += '\'';
      i += 2;
    } else if (c == 0xE2 && text.substr(i + 1, 1) == "\x80" && i + 2 < text.size()) {
      // The block of dashes, quotes and ellipses.
      if (!out.empty() && out.back() != ' ') out += ' ';
      i += 2;
    } else if (IsWord(c)) {
      out += static_cast<char>(std::tolower(c));
    } else if (inside && (c == '\'' || c == '-' || c == '.')) {
      out += static_cast<char>(c);
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

Pattern::Pattern() = default;
Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;

absl::StatusOr<Pattern> Pattern::Compile(std::string_view pattern) {
  if (Trim(pattern).empty()) return InvalidArgument("the pattern is empty");
  if (pattern.size() > kMaxPatternBytes) {
    return InvalidArgument("the pattern has {} bytes; at most {} are allowed", pattern.size(),
                           kMaxPatternBytes);
  }
  Pattern compiled;
  PARLEY_ASSIGN_OR_RETURN(const std::string regex, Translate(pattern, compiled.slots_));
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kMaxProgramBytes);
  compiled.regex_ = std::make_unique<RE2>(regex, options);
  if (!compiled.regex_->ok()) {
    return InvalidArgument("the pattern does not compile: {}", compiled.regex_->error());
  }
  if (compiled.regex_->NumberOfCapturingGroups() > 100)
    return InvalidArgument("the pattern has more than 100 groups");
  return compiled;
}

std::optional<std::map<std::string, std::string>> Pattern::Match(
    std::string_view normalised) const {
  const auto& groups = regex_->NamedCapturingGroups();
  std::vector<re2::StringPiece> found(static_cast<size_t>(regex_->NumberOfCapturingGroups()) + 1);
  const re2::StringPiece text(normalised.data(), normalised.size());
  if (!regex_->Match(text, 0, text.size(), RE2::UNANCHORED, found.data(),
                     static_cast<int>(found.size()))) {
    return std::nullopt;
  }
  std::map<std::string, std::string> slots;
  for (const auto& [name, index] : groups) {
    const re2::StringPiece& value = found[static_cast<size_t>(index)];
    // A group of an alternative that was not taken has no value.
    if (value.data() != nullptr) slots[name] = std::string(value.data(), value.size());
  }
  return slots;
}

}  // namespace parley::speech
