#include "engines/wyoming/events.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "speech/provider_words.h"

namespace parley::engines::wyoming {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 16;
constexpr int kBytesPerSample = 2;

// A discarded value when it is no object.
Json Object(std::string_view text) {
  if (!JsonNestsWithin(text, kMaxDepth)) return Json(Json::value_t::discarded);
  Json json = Json::parse(text, nullptr, false);
  return json.is_object() ? json : Json(Json::value_t::discarded);
}

// Nullopt: not a number of bytes up to `most`.
std::optional<size_t> Length(const Json& head, const char* name, size_t most) {
  const auto it = head.find(name);
  if (it == head.end() || it->is_null()) return 0;
  if (!it->is_number_unsigned() || it->get<uint64_t>() > most) return std::nullopt;
  return it->get<size_t>();
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Event Make(std::string type, const Json& data, std::string payload = {}) {
  return {std::move(type), Dump(data), std::move(payload)};
}

Json Format(int rate_hz) {
  return {{"rate", rate_hz}, {"width", kBytesPerSample}, {"channels", 1}};
}

}  // namespace

std::string Encode(const Event& event) {
  Json head = {{"type", event.type}, {"version", "1.5.0"}};
  if (event.data_json != "{}") head["data_length"] = event.data_json.size();
  if (!event.payload.empty()) head["payload_length"] = event.payload.size();
  std::string bytes = Dump(head) + "\n";
  if (event.data_json != "{}") bytes += event.data_json;
  return bytes + event.payload;
}

absl::StatusOr<std::optional<Event>> EventReader::Next() {
  const size_t end = buffer_.find('\n');
  if (end == std::string::npos) {
    if (buffer_.size() > kMaxLineBytes) return Unavailable("the server's line does not end");
    return std::optional<Event>();
  }
  if (end > kMaxLineBytes) return Unavailable("the server's line is too long");
  const Json head = Object(std::string_view(buffer_).substr(0, end));
  if (head.is_discarded() || !head.contains("type") || !head["type"].is_string())
    return Unavailable("the server does not speak Wyoming");
  const auto data_length = Length(head, "data_length", kMaxDataBytes);
  const auto payload_length = Length(head, "payload_length", kMaxPayloadBytes);
  if (!data_length || !payload_length)
    return Unavailable("the server announces more than an event may hold");
  const size_t whole = end + 1 + *data_length + *payload_length;
  if (buffer_.size() < whole) return std::optional<Event>();
  Event event;
  event.type = head["type"].get<std::string>();
  Json data = Json::object();
  if (const auto inside = head.find("data"); inside != head.end() && inside->is_object())
    data = *inside;
  if (*data_length > 0) {
    const Json more = Object(std::string_view(buffer_).substr(end + 1, *data_length));
    if (more.is_discarded()) return Unavailable("the server's data is not JSON");
    data.update(more);
  }
  event.data_json = Dump(data);
  event.payload = buffer_.substr(end + 1 + *data_length, *payload_length);
  buffer_.erase(0, whole);
  return std::optional<Event>(std::move(event));
}

absl::StatusOr<AudioFormat> FormatOf(const Event& event) {
  const Json data = Object(event.data_json);
  const auto number = [&data](const char* name) -> int64_t {
    if (data.is_discarded()) return 0;
    const auto it = data.find(name);
    return it != data.end() && it->is_number_unsigned()
               ? static_cast<int64_t>(std::min<uint64_t>(it->get<uint64_t>(), INT32_MAX))
               : 0;
  };
  const int64_t rate = number("rate");
  const int64_t channels = number("channels");
  if (rate < 8000 || rate > 192'000 || channels < 1 || channels > 2 ||
      number("width") != kBytesPerSample) {
    return Unavailable(
        "the server's audio is not 16 bits at 8,000 to 192,000 Hz in 1 or 2 channels");
  }
  return AudioFormat{static_cast<int>(rate), static_cast<int>(channels)};
}

std::string TextOf(const Event& event, std::string_view name) {
  const Json data = Object(event.data_json);
  if (data.is_discarded()) return {};
  const auto it = data.find(std::string(name));
  return it != data.end() && it->is_string() ? it->get<std::string>() : std::string();
}

std::string ErrorName(const Event& event) { return speech::NamesAmong({TextOf(event, "code")}); }

Event AudioStart(int rate_hz) { return Make("audio-start", Format(rate_hz)); }

Event AudioChunk(int rate_hz, std::string_view pcm) {
  return Make("audio-chunk", Format(rate_hz), std::string(pcm));
}

Event AudioStop() { return Make("audio-stop", Json::object()); }

Event Transcribe(std::string_view model, std::string_view language) {
  Json data = Json::object();
  if (!model.empty()) data["name"] = model;
  if (!language.empty()) data["language"] = language;
  return Make("transcribe", data);
}

Event Synthesize(std::string_view text, std::string_view voice, std::string_view language) {
  Json data = {{"text", text}};
  if (!voice.empty()) {
    data["voice"] = {{"name", voice}};
  } else if (!language.empty()) {
    data["voice"] = {{"language", language}};
  }
  return Make("synthesize", data);
}

}  // namespace parley::engines::wyoming
