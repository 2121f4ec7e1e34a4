#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "base/strings.h"
#include "speech/sentences.h"

namespace parley::speech {
namespace {

bool IsAlnum(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }
bool IsDigit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

struct Symbol {
  std::string_view text;
  std::string_view word;
};
constexpr std::array<Symbol, 5> kSymbols = {
    {{"%", "percent"}, {"&", "and"}, {"°", "degrees"}, {"→", "to"}, {"×", "times"}}};
constexpr std::array<Symbol, 3> kMoney = {{{"€", "euros"}, {"£", "pounds"}, {"$", "dollars"}}};
constexpr std::array<Symbol, 7> kTypography = {{{"\u2018", "'"},
                                                {"\u2019", "'"},
                                                {"\u201c", "\""},
                                                {"\u201d", "\""},
                                                {"\u2013", ", "},
                                                {"\u2014", ", "},
                                                {"\u00a0", " "}}};

// "[text](address)" and "![description](address)" at `i`: their text; `i` moves behind them.
bool TakeLink(std::string_view text, size_t& i, std::string& out) {
  const size_t open = text[i] == '!' ? i + 1 : i;
  if (open >= text.size() || text[open] != '[') return false;
  const size_t close = text.find("](", open);
  if (close == std::string_view::npos) return false;
  const size_t end = text.find(')', close);
  if (end == std::string_view::npos) return false;
  out += text.substr(open + 1, close - open - 1);
  i = end + 1;
  return true;
}

// A bare address at `i`: its host; `i` moves behind it.
bool TakeUrl(std::string_view text, size_t& i, std::string& out) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (text.substr(i, scheme.size()) != scheme) continue;
    size_t end = i + scheme.size();
    const size_t host = end;
    while (end < text.size() && (IsAlnum(text[end]) || text[end] == '.' || text[end] == '-')) ++end;
    size_t host_end = end;
    while (host_end > host && text[host_end - 1] == '.') --host_end;
    out += text.substr(host, host_end - host);
    constexpr std::string_view kStops = " \t\n)\"'<>";
    if (host_end == end) {
      while (end < text.size() && kStops.find(text[end]) == std::string_view::npos) ++end;
      while (end > host_end && (text[end - 1] == '.' || text[end - 1] == ',')) --end;
    }
    i = host_end == end ? host_end : std::max(host_end, end);
    return true;
  }
  return false;
}

// Drops "# ", "- ", "* ", "+ ", "> ", "1. " from the start.
std::string_view WithoutLineMark(std::string_view line) {
  line = Trim(line);
  while (!line.empty()) {
    size_t mark = line.find_first_not_of('#');
    if (mark == std::string_view::npos) return {};
    if (mark == 0 && (line[0] == '-' || line[0] == '*' || line[0] == '+' || line[0] == '>'))
      mark = 1;
    if (mark == 0) {
      while (mark < line.size() && IsDigit(line[mark])) ++mark;
      if (mark == 0 || mark >= line.size() || (line[mark] != '.' && line[mark] != ')')) return line;
      ++mark;
    }
    if (mark >= line.size())
      return mark == line.size() && !IsDigit(line[0]) ? std::string_view{} : line;
    if (line[mark] != ' ') return line;
    line = Trim(line.substr(mark));
  }
  return line;
}

// Bytes of the emoji or pictograph at `i`, 0 when there is none.
size_t EmojiLength(std::string_view text, size_t i) {
  const auto c = static_cast<unsigned char>(text[i]);
  if (c == 0xF0 && i + 3 < text.size() && static_cast<unsigned char>(text[i + 1]) == 0x9F) return 4;
  if (c != 0xE2 && c != 0xEF) return 0;
  if (i + 2 >= text.size()) return 0;
  const auto second = static_cast<unsigned char>(text[i + 1]);
  const auto third = static_cast<unsigned char>(text[i + 2]);
  if (c == 0xE2 && second >= 0x98 && second <= 0x9E) return 3;  // U+2600 to U+27BF
  if (c == 0xE2 && second == 0x80 && third == 0x8D) return 3;   // zero-width joiner
  if (c == 0xEF && second == 0xB8 && third == 0x8F) return 3;   // variation selector
  return 0;
}

bool TakeMoney(std::string_view text, size_t& i, std::string& out) {
  for (const Symbol& money : kMoney) {
    if (text.substr(i, money.text.size()) != money.text) continue;
    size_t end = i + money.text.size();
    const size_t start = end;
    while (end < text.size() && (IsDigit(text[end]) || text[end] == '.' || text[end] == ',')) ++end;
    while (end > start && !IsDigit(text[end - 1])) --end;
    if (end > start) {
      out += text.substr(start, end - start);
    }
    out += ' ';
    out += money.word;
    if (end == start) out += ' ';
    i = end;
    return true;
  }
  return false;
}

template <size_t N>
const Symbol* SymbolAt(const std::array<Symbol, N>& table, std::string_view text, size_t i) {
  for (const Symbol& symbol : table) {
    if (text.substr(i, symbol.text.size()) == symbol.text) return &symbol;
  }
  return nullptr;
}

std::string Collapsed(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    if (space && (out.empty() || out.back() == ' ')) continue;
    constexpr std::string_view kTight = ".,!?;:";
    if (!out.empty() && out.back() == ' ' && kTight.find(c) != std::string_view::npos)
      out.pop_back();
    out += space ? ' ' : c;
  }
  return std::string(Trim(out));
}

bool HasWords(std::string_view text) {
  for (const char c : text) {
    if (IsAlnum(c) || static_cast<unsigned char>(c) >= 0x80) return true;
  }
  return false;
}

}  // namespace

std::string SpokenText(std::string_view sentence, std::string_view language) {
  const bool english = language.empty() || ToLower(language.substr(0, 2)) == "en";
  const std::string_view text = WithoutLineMark(sentence);
  std::string out;
  size_t i = 0;
  while (i < text.size()) {
    if (TakeLink(text, i, out) || TakeUrl(text, i, out)) continue;
    if (const size_t emoji = EmojiLength(text, i); emoji > 0) {
      i += emoji;
      continue;
    }
    if (const Symbol* symbol = SymbolAt(kTypography, text, i)) {
      out += symbol->word;
      i += symbol->text.size();
      continue;
    }
    if (english) {
      if (TakeMoney(text, i, out)) continue;
      if (const Symbol* symbol = SymbolAt(kSymbols, text, i)) {
        out += ' ';
        out += symbol->word;
        out += ' ';
        i += symbol->text.size();
        continue;
      }
    }
    const char c = text[i];
    const bool between =
        i > 0 && i + 1 < text.size() && IsAlnum(text[i - 1]) && IsAlnum(text[i + 1]);
    if (c == '*' || c == '`' || c == '~' || (c == '_' && !between)) {
      ++i;
      continue;
    }
    out += c == '|' || c == '_' || c == '#' ? ' ' : c;
    ++i;
  }
  out = Collapsed(out);
  return HasWords(out) ? out : std::string();
}

}  // namespace parley::speech
