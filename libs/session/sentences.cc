#include "session/sentences.h"

#include <algorithm>
#include <array>

#include "base/strings.h"

namespace parley::session {
namespace {

// Too short to be worth a breath of its own: "Yes." goes with what follows it, if that comes in
// time.
constexpr size_t kMinBytes = 12;

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

bool EndsInAbbreviation(std::string_view text) {
  static constexpr std::array<std::string_view, 14> kAbbreviations = {
      "mr.", "mrs.", "ms.",  "dr.",  "prof.",   "st.",  "no.",
      "vs.", "e.g.", "i.e.", "etc.", "approx.", "a.m.", "p.m."};
  const size_t space = text.find_last_of(" \n\t(");
  const std::string word = ToLower(space == std::string_view::npos ? text : text.substr(space + 1));
  return std::find(kAbbreviations.begin(), kAbbreviations.end(), word) != kAbbreviations.end();
}

// Never inside a UTF-8 character.
size_t CutAtSpace(std::string_view text) {
  for (const std::string_view stops : {",;:", " \n\t"}) {
    const size_t at = text.substr(0, SentenceSplitter::kMaxBytes).find_last_of(stops);
    if (at != std::string_view::npos && at > kMinBytes) return at + 1;
  }
  size_t at = SentenceSplitter::kMaxBytes;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

}  // namespace

std::vector<std::string> SentenceSplitter::Add(std::string_view text) {
  for (const char c : text) {
    if (c != '*' && c != '`' && c != '#') text_ += c;
  }
  std::vector<std::string> out;
  for (size_t end = End(); end > 0; end = End()) TakeUpTo(end, out);
  return out;
}

std::vector<std::string> SentenceSplitter::Finish() {
  std::vector<std::string> out;
  while (text_.size() > kMaxBytes) TakeUpTo(CutAtSpace(text_), out);
  TakeUpTo(text_.size(), out);
  return out;
}

size_t SentenceSplitter::End() const {
  for (size_t i = 0; i + 1 < text_.size(); ++i) {
    const char c = text_[i];
    const bool line = c == '\n' && i >= kMinBytes;
    const bool stop = (c == '.' || c == '!' || c == '?') && IsSpace(text_[i + 1]) &&
                      i + 1 >= kMinBytes &&
                      !EndsInAbbreviation(std::string_view(text_).substr(0, i + 1));
    if (line || stop) return i + 1;
    if (i + 1 >= kMaxBytes) return CutAtSpace(text_);
  }
  return 0;
}

void SentenceSplitter::TakeUpTo(size_t end, std::vector<std::string>& out) {
  const std::string_view sentence = Trim(std::string_view(text_).substr(0, end));
  if (!sentence.empty()) out.emplace_back(sentence);
  text_.erase(0, end);
}

}  // namespace parley::session
