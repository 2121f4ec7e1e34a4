#include "tts_gateway/ssml.h"

#include <absl/strings/numbers.h>
#include <expat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace parley {
namespace {

struct Named {
  std::string_view name;
  double value;
};
constexpr std::array<Named, 6> kRates = {{{"x-slow", 0.5},
                                          {"slow", 0.75},
                                          {"medium", 1},
                                          {"default", 1},
                                          {"fast", 1.25},
                                          {"x-fast", 1.75}}};
constexpr std::array<Named, 6> kPitches = {
    {{"x-low", 0.7}, {"low", 0.85}, {"medium", 1}, {"default", 1}, {"high", 1.2}, {"x-high", 1.4}}};
constexpr std::array<Named, 6> kStrengths = {{{"none", 0},
                                              {"x-weak", 100},
                                              {"weak", 200},
                                              {"medium", 400},
                                              {"strong", 700},
                                              {"x-strong", 1000}}};
constexpr double kSlowest = 0.25;  // of all nested prosody together
constexpr double kFastest = 4;

// The number before `unit`; nothing else may stand there.
std::optional<double> Number(std::string_view text, std::string_view unit) {
  if (!text.ends_with(unit)) return std::nullopt;
  text.remove_suffix(unit.size());
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const bool plain = !text.empty() && text.find_first_not_of("0123456789.-") == text.npos;
  if (!plain || !absl::SimpleAtod({text.data(), text.size()}, &value) || !std::isfinite(value))
    return std::nullopt;
  return value;
}

template <size_t N>
std::optional<double> Find(const std::array<Named, N>& names, std::string_view name) {
  for (const Named& one : names)
    if (one.name == name) return one.value;
  return std::nullopt;
}

// "+10%", "-10%": that much more or less. An unsigned share ("80%") is of the voice's own.
std::optional<double> Share(std::string_view text) {
  const std::optional<double> percent = Number(text, "%");
  if (!percent.has_value()) return std::nullopt;
  const bool change = text.starts_with('+') || text.starts_with('-');
  return change ? 1 + *percent / 100 : *percent / 100;
}

std::optional<double> Rate(std::string_view text) {
  if (const auto named = Find(kRates, text)) return named;
  if (const auto share = Share(text)) return share;
  return Number(text, "");
}

std::optional<double> Pitch(std::string_view text) {
  if (const auto named = Find(kPitches, text)) return named;
  if (const auto share = Share(text)) return share;
  const std::optional<double> semitones = Number(text, "st");
  if (!semitones.has_value()) return std::nullopt;
  return std::exp2(*semitones / 12);
}

std::optional<absl::Duration> Pause(std::string_view time) {
  std::optional<double> ms = Number(time, "ms");
  if (!ms.has_value()) {
    ms = Number(time, "s");
    if (ms.has_value()) *ms *= 1000;
  }
  if (!ms.has_value() || !(*ms >= 0) || *ms > absl::ToDoubleMilliseconds(kMaxSsmlPause))
    return std::nullopt;
  return absl::Milliseconds(*ms);
}

// Character by character; `digits_only`: what is between digits is a short rest.
std::string Spelled(std::string_view text, bool digits_only) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    size_t end = i + 1;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    const std::string_view one = text.substr(i, end - i);
    i = end;
    const bool word = std::isalnum(static_cast<unsigned char>(one[0])) != 0 || one.size() > 1;
    if (digits_only && !word && one != "+") {
      if (!out.empty() && out.back() != ',') out += ',';
      continue;
    }
    if (one == " ") continue;
    if (!out.empty()) out += ' ';
    out += one;
  }
  while (out.ends_with(',')) out.pop_back();
  return out;
}

class Reader {
 public:
  Reader() : parser_(XML_ParserCreate("UTF-8"), &XML_ParserFree) {
    XML_SetUserData(parser_.get(), this);
    XML_SetElementHandler(parser_.get(), &OnStart, &OnEnd);
    XML_SetCharacterDataHandler(parser_.get(), &OnText);
    XML_SetStartDoctypeDeclHandler(parser_.get(), &OnDoctype);
  }

  absl::StatusOr<std::vector<SsmlPiece>> Read(std::string_view document) {
    const XML_Status parsed =
        XML_Parse(parser_.get(), document.data(), static_cast<int>(document.size()), XML_TRUE);
    if (!error_.ok()) return error_;
    if (parsed != XML_STATUS_OK) {
      return InvalidArgument("SSML: {} in line {}",
                             XML_ErrorString(XML_GetErrorCode(parser_.get())),
                             XML_GetCurrentLineNumber(parser_.get()));
    }
    EndPiece();
    if (pause_ > absl::ZeroDuration()) pieces_.push_back({{}, pause_, 1, 1});
    return std::move(pieces_);
  }

 private:
  struct Element {
    double rate = 1;
    double pitch = 1;
    bool muted = false;    // its text is said otherwise
    bool spelled = false;  // its text is collected in spelled_
    bool digits = false;
  };

  static void XMLCALL OnStart(void* self, const XML_Char* name, const XML_Char** attributes) {
    static_cast<Reader*>(self)->Start(name, attributes);
  }
  static void XMLCALL OnEnd(void* self, const XML_Char* name) {
    static_cast<Reader*>(self)->End(name);
  }
  static void XMLCALL OnText(void* self, const XML_Char* text, int size) {
    static_cast<Reader*>(self)->Text({text, static_cast<size_t>(size)});
  }
  static void XMLCALL OnDoctype(void* self, const XML_Char* /*name*/, const XML_Char* /*system*/,
                                const XML_Char* /*public_id*/, int /*has_internal*/) {
    static_cast<Reader*>(self)->Fail(InvalidArgument("SSML: a DOCTYPE is not read here"));
  }

  void Fail(absl::Status error) {
    if (!error_.ok()) return;
    error_ = std::move(error);
    XML_StopParser(parser_.get(), XML_FALSE);
  }

  void Start(std::string_view name, const XML_Char** attributes) {
    if (!error_.ok()) return;
    if (++elements_ > kMaxSsmlElements)
      return Fail(InvalidArgument("SSML: more than {} elements", kMaxSsmlElements));
    if (open_.size() >= kMaxSsmlDepth)
      return Fail(InvalidArgument("SSML: elements nest deeper than {}", kMaxSsmlDepth));
    if (open_.empty() != (name == "speak"))
      return Fail(InvalidArgument("SSML: one <speak> holds all the others"));
    Element element = open_.empty() ? Element() : open_.back();
    const auto attribute = [attributes](std::string_view wanted) {
      for (const XML_Char** at = attributes; *at != nullptr; at += 2)
        if (wanted == *at) return std::string_view(at[1]);
      return std::string_view();
    };
    if (name == "break") {
      Break(attribute("time"), attribute("strength"));
    } else if (name == "prosody") {
      EndPiece();
      Prosody(attribute("rate"), attribute("pitch"), element);
    } else if (name == "p" || name == "s") {
      EndPiece();
      // The first one of a document waits for nothing.
      if (name == "p" && !pieces_.empty()) Rest(kSsmlParagraph);
    } else if (name == "sub") {
      Text(attribute("alias"));
      element.muted = true;
    } else if (name == "say-as") {
      const std::string_view as = attribute("interpret-as");
      element.digits = as == "digits" || as == "telephone";
      element.spelled = element.digits || as == "characters" || as == "spell-out";
    } else if (name != "speak" && name != "emphasis" && name != "phoneme" && name != "lang" &&
               name != "w" && name != "token" && name != "mark") {
      return Fail(InvalidArgument("SSML: the element {} is not spoken here", name.substr(0, 32)));
    }
    open_.push_back(element);
  }

  void End(std::string_view name) {
    if (!error_.ok()) return;
    if (name == "prosody" || name == "p" || name == "s") EndPiece();
    const Element element = open_.back();
    open_.pop_back();
    const bool outer = !open_.empty() && open_.back().spelled;
    if (!element.spelled || outer) return;
    text_ += Spelled(std::exchange(spelled_, {}), element.digits);
  }

  void Text(std::string_view text) {
    if (!error_.ok() || open_.empty() || open_.back().muted) return;
    (open_.back().spelled ? spelled_ : text_) += text;
  }

  void Break(std::string_view time, std::string_view strength) {
    EndPiece();
    std::optional<absl::Duration> pause;
    if (!time.empty()) {
      pause = Pause(time);
    } else if (const auto ms = Find(kStrengths, strength.empty() ? "medium" : strength)) {
      pause = absl::Milliseconds(*ms);
    }
    if (!pause.has_value()) {
      return Fail(
          InvalidArgument("SSML: a break lasts from 0 to {}, as 500ms or 1.5s, or has a "
                          "strength",
                          absl::FormatDuration(kMaxSsmlPause)));
    }
    Rest(*pause);
  }

  void Rest(absl::Duration pause) {
    pause_ += pause;
    silence_ += pause;
    if (silence_ > kMaxSsmlSilence) {
      Fail(InvalidArgument("SSML: more than {} of breaks", absl::FormatDuration(kMaxSsmlSilence)));
    }
  }

  void Prosody(std::string_view rate, std::string_view pitch, Element& element) {
    const auto times = [this](std::string_view text, std::optional<double> value, double& product) {
      if (text.empty()) return;
      if (!value.has_value() || !(*value > 0)) {
        return Fail(
            InvalidArgument("SSML: prosody \"{}\" is neither a word, a share (80%, +10%) "
                            "nor a number",
                            text.substr(0, 32)));
      }
      product = std::clamp(product * *value, kSlowest, kFastest);
    };
    times(rate, Rate(rate), element.rate);
    times(pitch, Pitch(pitch), element.pitch);
  }

  // What is said next differs from what was said so far, or comes after a pause.
  void EndPiece() {
    std::string text = std::exchange(text_, {});
    if (Trim(text).empty()) return;
    const Element& now = open_.empty() ? last_ : open_.back();
    pieces_.push_back(
        {std::move(text), std::exchange(pause_, absl::ZeroDuration()), now.rate, now.pitch});
  }

  const std::unique_ptr<XML_ParserStruct, decltype(&XML_ParserFree)> parser_;
  absl::Status error_;
  std::vector<Element> open_;
  const Element last_;  // when all are closed
  size_t elements_ = 0;
  std::string text_;     // of the piece that is being read
  std::string spelled_;  // of a say-as
  absl::Duration pause_;
  absl::Duration silence_;
  std::vector<SsmlPiece> pieces_;
};

}  // namespace

bool IsSsml(std::string_view text) {
  text = Trim(text);
  for (const std::string_view head : {"<speak", "<?xml", "<!DOCTYPE"})
    if (text.starts_with(head)) return true;
  return false;
}

absl::StatusOr<std::vector<SsmlPiece>> ParseSsml(std::string_view document) {
  constexpr size_t kMaxBytes = 1 << 20;
  if (document.size() > kMaxBytes) return InvalidArgument("SSML: more than {} bytes", kMaxBytes);
  return Reader().Read(Trim(document));
}

}  // namespace parley
