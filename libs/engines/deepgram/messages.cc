#include "engines/deepgram/messages.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "base/strings.h"
#include "http/client.h"
#include "speech/provider_words.h"

namespace parley::engines::deepgram {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 16;
constexpr size_t kMaxWords = 10'000;
constexpr double kMaxSeconds = 1e6;
constexpr size_t kMaxUrlBytes = 8 << 10;
// What a definition may say of how its callers are heard; the rest is ours or the operator's.
constexpr std::array<std::string_view, 9> kOptions = {
    "dictation", "endpointing", "filler_words", "numerals",        "profanity_filter",
    "punctuate", "redact",      "smart_format", "utterance_end_ms"};

std::string Text(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}
bool Flag(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}
double Number(const Json& object, const char* name, double most) {
  const auto it = object.find(name);
  const double value = it != object.end() && it->is_number() ? it->get<double>() : 0;
  return value > 0 ? std::min(value, most) : 0;  // and not a NaN
}
int64_t Ms(const Json& object, const char* name) {
  return std::llround(Number(object, name, kMaxSeconds) * 1000);
}

void ReadWords(const Json& words, speech::SttTranscript& out) {
  for (const Json& word : words) {
    if (!word.is_object()) continue;
    if (out.words.size() >= kMaxWords) return;
    speech::WordTime time;
    time.word = Text(word, "punctuated_word");
    if (time.word.empty()) time.word = Text(word, "word");
    time.start_ms = static_cast<int32_t>(Ms(word, "start"));
    time.end_ms = std::max(time.start_ms, static_cast<int32_t>(Ms(word, "end")));
    time.confidence = static_cast<float>(Number(word, "confidence", 1));
    out.words.push_back(std::move(time));
  }
}

void ReadResults(const Json& json, Results& out) {
  out.end_ms = Ms(json, "start") + Ms(json, "duration");
  out.final = Flag(json, "is_final");
  out.finalized = Flag(json, "from_finalize");
  out.speech_final = Flag(json, "speech_final");
  const auto channel = json.find("channel");
  if (channel == json.end() || !channel->is_object()) return;
  const auto alternatives = channel->find("alternatives");
  if (alternatives == channel->end() || !alternatives->is_array() || alternatives->empty() ||
      !alternatives->front().is_object()) {
    return;
  }
  const Json& best = alternatives->front();
  out.transcript.text = Text(best, "transcript");
  out.transcript.confidence = static_cast<float>(Number(best, "confidence", 1));
  const auto languages = best.find("languages");
  if (languages != best.end() && languages->is_array() && !languages->empty() &&
      languages->front().is_string()) {
    out.transcript.language = languages->front().get<std::string>();
  }
  const auto words = best.find("words");
  if (words != best.end() && words->is_array()) ReadWords(*words, out.transcript);
}

}  // namespace

absl::StatusOr<Message> ParseMessage(std::string_view text) {
  if (!JsonNestsWithin(text, kMaxDepth))
    return Unavailable("the provider's message nests too deep");
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return Unavailable("the provider's message is not a JSON object");
  Message message;
  const std::string type = Text(json, "type");
  // Beside results in their `metadata`, in a message of metadata by itself.
  const auto metadata = json.find("metadata");
  const bool inside = metadata != json.end() && metadata->is_object();
  message.request_id = speech::IdOnly(Text(inside ? *metadata : json, "request_id"));
  if (type == "Results") {
    message.kind = Message::Kind::kResults;
    ReadResults(json, message.results);
  } else if (type == "SpeechStarted") {
    message.kind = Message::Kind::kSpeechStarted;
    message.at_ms = Ms(json, "timestamp");
  } else if (type == "UtteranceEnd") {
    message.kind = Message::Kind::kUtteranceEnd;
    message.at_ms = Ms(json, "last_word_end");
  } else if (type == "Error") {
    message.kind = Message::Kind::kError;
    message.error = speech::NamesAmong(
        {Text(json, "variant"), Text(json, "description"), Text(json, "message")});
  }
  return message;
}

absl::StatusOr<std::string> ListenUrl(const std::string& base, const std::string& model,
                                      const speech::SttConfig& config, int rate_hz) {
  // Partials are always asked for: they tell whether words are still on their way.
  std::string url = base +
                    "/listen?encoding=linear16&channels=1&sample_rate=" + std::to_string(rate_hz) +
                    "&model=" + http::UrlEncode(model) + "&interim_results=true&vad_events=true";
  if (!config.language.empty()) url += "&language=" + http::UrlEncode(config.language);
  for (const auto& [name, value] : config.options) {
    if (std::find(kOptions.begin(), kOptions.end(), name) == kOptions.end())
      return InvalidArgument("the engine deepgram has no option \"{}\"", name);
    url += "&" + name + "=" + http::UrlEncode(value);
  }
  // Models of the third generation take key terms, older ones keywords.
  const char* hint = model.starts_with("nova-3") ? "&keyterm=" : "&keywords=";
  for (const std::string& phrase : config.phrases) url += hint + http::UrlEncode(phrase);
  if (url.size() > kMaxUrlBytes) {
    return InvalidArgument("{} phrases are more than the engine deepgram can be told ({} bytes)",
                           config.phrases.size(), kMaxUrlBytes);
  }
  return url;
}

}  // namespace parley::engines::deepgram
