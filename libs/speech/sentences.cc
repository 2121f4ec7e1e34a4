#include "speech/sentences.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

#include "base/strings.h"

namespace parley::speech {
namespace {

constexpr std::array<std::string_view, 24> kAbbreviations = {
    "mr", "mrs", "ms",  "dr", "prof",   "st",   "sr",  "jr",  "vs",  "etc", "e.g", "i.e",
    "no", "inc", "ltd", "co", "approx", "dept", "est", "fig", "gen", "gov", "sen", "rev"};
constexpr std::array<std::string_view, 4> kWideEnds = {"。", "！", "？", "…"};

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
bool IsAlpha(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }
bool IsDigit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }
bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Does the full stop at `dot` belong to an abbreviation, an initial or a list number?
bool StopIsPartOfWord(std::string_view text, size_t dot) {
  size_t start = dot;
  while (start > 0 && !IsSpace(text[start - 1]) && text[start - 1] != '(') --start;
  const std::string word = ToLower(text.substr(start, dot - start));
  if (word.empty()) return false;
  if (word.size() == 1 && IsAlpha(word[0]) && word != "i") return true;  // an initial
  const bool numbers = std::all_of(word.begin(), word.end(), IsDigit);
  // "1." opens a list item; "in 1984." ends a sentence.
  if (numbers && (start == 0 || text[start - 1] == '\n')) return true;
  // "p.m." and the like end a sentence only when what follows says so; waiting costs more.
  return std::find(kAbbreviations.begin(), kAbbreviations.end(), word) != kAbbreviations.end();
}

// Length of the sentence end at `i` (marks, closing quotes), 0 when none is there, nullopt when
// more text is needed to tell.
std::optional<size_t> EndAt(std::string_view text, size_t i, bool end_of_text) {
  if (text[i] == '\n') return 1;
  for (const std::string_view wide : kWideEnds) {
    if (text.substr(i, wide.size()) != wide) continue;
    if (wide != "…") return wide.size();
    const size_t after = i + wide.size();
    if (after == text.size())
      return end_of_text ? std::optional<size_t>(wide.size()) : std::nullopt;
    return IsSpace(text[after]) ? wide.size() : 0;
  }
  if (text[i] != '.' && text[i] != '!' && text[i] != '?') return 0;
  size_t end = i;
  while (end < text.size() && (text[end] == '.' || text[end] == '!' || text[end] == '?')) ++end;
  const bool single_stop = end == i + 1 && text[i] == '.';
  constexpr std::string_view kClosers = "\"')]*_";
  while (end < text.size() && kClosers.find(text[end]) != std::string_view::npos) ++end;
  if (text.substr(end, 3) == "\u201d" || text.substr(end, 3) == "\u2019") end += 3;
  if (end == text.size() && !end_of_text) return std::nullopt;
  if (end < text.size() && !IsSpace(text[end])) return 0;  // 3.5, example.com, e.g
  if (single_stop && StopIsPartOfWord(text, i)) return 0;
  return end - i;
}

// Where to cut a sentence that no mark ends: after the last clause, else word, else character that
// fits.
size_t ForcedCut(std::string_view text) {
  const std::string_view head = text.substr(0, kMaxSentenceBytes);
  for (const std::string_view marks : {std::string_view(";:"), std::string_view(",")}) {
    const size_t clause = head.find_last_of(marks);
    if (clause != std::string_view::npos && clause > kMaxSentenceBytes / 3) return clause + 1;
  }
  const size_t space = head.find_last_of(" \t\r\n");
  if (space != std::string_view::npos && space > 0) return space;
  size_t cut = kMaxSentenceBytes;
  while (cut > 0 && IsContinuation(text[cut])) --cut;
  return cut == 0 ? kMaxSentenceBytes : cut;
}

void Keep(std::vector<std::string>& out, std::string_view sentence) {
  const std::string_view trimmed = Trim(sentence);
  if (!trimmed.empty()) out.emplace_back(trimmed);
}

}  // namespace

std::vector<std::string> SentenceSplitter::Push(std::string_view piece) {
  std::vector<std::string> out;
  buffer_ += piece;
  Take(out, false);
  return out;
}

std::vector<std::string> SentenceSplitter::Flush() {
  std::vector<std::string> out;
  Take(out, true);
  if (!in_code_) Keep(out, buffer_);
  Clear();
  return out;
}

void SentenceSplitter::Clear() {
  buffer_.clear();
  in_code_ = false;
}

void SentenceSplitter::Take(std::vector<std::string>& out, bool end_of_text) {
  constexpr std::string_view kFence = "```";
  size_t start = 0;
  size_t i = 0;
  const auto drop_taken = [&] {
    buffer_.erase(0, start);
    start = 0;
  };
  while (i < buffer_.size()) {
    const std::string_view text(buffer_);
    if (in_code_) {
      const size_t fence = text.find(kFence, i);
      if (fence == std::string_view::npos) {
        // Keep two characters: they may begin the closing fence.
        start = end_of_text ? text.size()
                            : std::max(start, text.size() - std::min<size_t>(2, text.size()));
        return drop_taken();
      }
      in_code_ = false;
      start = i = fence + kFence.size();
      continue;
    }
    if (text[i] == '`') {
      if (text.substr(i, kFence.size()) == kFence) {
        Keep(out, text.substr(start, i - start));
        in_code_ = true;
        start = i = i + kFence.size();
        continue;
      }
      if (!end_of_text && text.size() - i < kFence.size()) return drop_taken();
    }
    const std::optional<size_t> end = EndAt(text.substr(start), i - start, end_of_text);
    if (!end.has_value()) return drop_taken();
    if (*end > 0) {
      Keep(out, text.substr(start, i + *end - start));
      start = i = i + *end;
      continue;
    }
    if (i - start >= kMaxSentenceBytes) {
      const size_t cut = ForcedCut(text.substr(start));
      Keep(out, text.substr(start, cut));
      start = i = start + cut;
      continue;
    }
    ++i;
  }
  drop_taken();
}

}  // namespace parley::speech
