#include "engines/openai/realtime_codec.h"

#include <absl/strings/escaping.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "audio/pcm.h"
#include "base/status.h"
#include "base/strings.h"
#include "speech/provider_words.h"

namespace parley::engines {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 64;
constexpr size_t kMaxPast = 16;
constexpr size_t kMaxParts = 64;
constexpr size_t kMaxUtterances = 64;
constexpr size_t kMaxTranscriptBytes = size_t{16} << 10;
constexpr int64_t kCancelUs = 2'000'000;
constexpr char kTranscriber[] = "gpt-4o-mini-transcribe";
constexpr char kConfigEvent[] = "session";

std::string CommitEvent(uint64_t utterance) { return "commit_" + std::to_string(utterance); }

Json Parse(std::string_view text) {
  if (!JsonNestsWithin(text, kMaxDepth)) return nullptr;
  Json value = Json::parse(text, nullptr, false);
  return value.is_discarded() ? Json(nullptr) : value;
}

// Text that is not UTF-8 must not throw.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const Json& At(const Json& object, const char* field) {
  static const Json kNothing;
  if (!object.is_object()) return kNothing;
  const auto it = object.find(field);
  return it == object.end() ? kNothing : *it;
}
std::string TextAt(const Json& object, const char* field) {
  const Json& value = At(object, field);
  return value.is_string() ? value.get<std::string>() : std::string();
}
std::string ErrorNames(const Json& error) {
  return speech::NamesAmong({TextAt(error, "type"), TextAt(error, "code"), TextAt(error, "param")});
}
int64_t NumberAt(const Json& object, const char* field) {
  const Json& value = At(object, field);
  return value.is_number_integer() ? value.get<int64_t>() : 0;
}

Json PcmFormat() { return {{"type", "audio/pcm"}, {"rate", RealtimeCodec::kRateHz}}; }

absl::StatusOr<Json> ToolsJson(const std::vector<speech::ChatTool>& tools) {
  Json list = Json::array();
  for (const speech::ChatTool& tool : tools) {
    Json parameters = tool.parameters_json.empty() ? Json::object() : Parse(tool.parameters_json);
    if (!parameters.is_object())
      return InvalidArgument("the schema of the tool \"{}\" is no JSON object", tool.name);
    list.push_back({{"type", "function"},
                    {"name", tool.name},
                    {"description", tool.description},
                    {"parameters", std::move(parameters)}});
  }
  return list;
}

Json ChoiceJson(const std::string& choice) {
  if (choice.empty() || choice == "auto") return "auto";
  if (choice == "none" || choice == "required") return choice;
  return {{"type", "function"}, {"name", choice}};
}

Json ItemJson(const speech::ChatItem& item) {
  if (const auto* message = std::get_if<speech::ChatMessage>(&item)) {
    const bool own = message->role == "assistant";
    return {
        {"type", "message"},
        {"role", message->role},
        {"content",
         Json::array({{{"type", own ? "output_text" : "input_text"}, {"text", message->text}}})}};
  }
  if (const auto* call = std::get_if<speech::ChatToolCall>(&item)) {
    return {{"type", "function_call"},
            {"call_id", call->call_id},
            {"name", call->name},
            {"arguments", call->arguments_json.empty() ? "{}" : call->arguments_json}};
  }
  const auto& result = std::get<speech::ChatToolResult>(item);
  return {{"type", "function_call_output"},
          {"call_id", result.call_id},
          {"output", (result.is_error ? "Error: " : "") + result.output}};
}

std::string Option(const speech::RealtimeConfig& config, const char* name, const char* otherwise) {
  const auto it = config.model.options.find(name);
  return it == config.model.options.end() ? otherwise : it->second;
}

absl::StatusOr<Json> SessionJson(const speech::RealtimeConfig& config, const std::string& model,
                                 const std::string& instructions) {
  for (const auto& [name, value] : config.model.options) {
    if (name != "transcription_model")
      return InvalidArgument("openai-realtime has no option \"{}\"", name);
  }
  if (config.model.temperature.has_value())
    return InvalidArgument("openai-realtime takes no temperature");
  Json input = {{"format", PcmFormat()}, {"turn_detection", nullptr}};
  if (config.server_turns) {
    // Turns are ours: it only tells.
    input["turn_detection"] = {
        {"type", "server_vad"}, {"create_response", false}, {"interrupt_response", false}};
    if (config.silence > absl::ZeroDuration())
      input["turn_detection"]["silence_duration_ms"] = absl::ToInt64Milliseconds(config.silence);
  }
  const std::string transcriber = Option(config, "transcription_model", kTranscriber);
  if (transcriber != "none") {
    input["transcription"] = {{"model", transcriber}};
    // ISO 639-1 is what it takes.
    if (!config.language.empty())
      input["transcription"]["language"] = config.language.substr(0, config.language.find('-'));
  }
  Json output = {{"format", PcmFormat()}};
  if (!config.voice.empty()) output["voice"] = config.voice;
  Json session = {{"type", "realtime"},
                  {"model", model},
                  {"instructions", instructions},
                  {"output_modalities", {"audio"}},
                  {"audio", {{"input", std::move(input)}, {"output", std::move(output)}}},
                  {"tool_choice", "auto"}};
  PARLEY_ASSIGN_OR_RETURN(session["tools"], ToolsJson(config.tools));
  if (config.model.max_tokens) session["max_output_tokens"] = *config.model.max_tokens;
  return session;
}

speech::ChatUsage UsageOf(const Json& usage) {
  speech::ChatUsage out;
  out.input_tokens = NumberAt(usage, "input_tokens");
  out.output_tokens = NumberAt(usage, "output_tokens");
  out.cached_input_tokens = NumberAt(At(usage, "input_token_details"), "cached_tokens");
  return out;
}

}  // namespace

absl::StatusOr<RealtimeCodec> RealtimeCodec::Create(const speech::RealtimeConfig& config,
                                                    const std::string& model) {
  RealtimeCodec codec;
  codec.server_turns_ = config.server_turns;
  size_t first = 0;
  for (; first < config.items.size(); ++first) {
    const auto* message = std::get_if<speech::ChatMessage>(&config.items[first]);
    if (message == nullptr || message->role != "system") break;
    codec.instructions_ += (codec.instructions_.empty() ? "" : "\n\n") + message->text;
  }
  PARLEY_ASSIGN_OR_RETURN(Json session, SessionJson(config, model, codec.instructions_));
  codec.Send(Dump(
      {{"type", "session.update"}, {"event_id", kConfigEvent}, {"session", std::move(session)}}));
  for (; first < config.items.size(); ++first) codec.Add(config.items[first]);
  return codec;
}

// ---- to the server ----

void RealtimeCodec::Audio(std::span<const int16_t> samples) {
  const std::string_view bytes = audio::AsBytes(samples);
  // Base64 and no more: by far most of what is sent.
  Send(R"({"type":"input_audio_buffer.append","audio":")" +
       absl::Base64Escape({bytes.data(), bytes.size()}) + R"("})");
}

void RealtimeCodec::Commit(uint64_t utterance) {
  if (committed_.size() >= kMaxUtterances) committed_.pop_front();
  committed_.push_back(utterance);
  latest_ = std::max(latest_, utterance);
  Send(Dump({{"type", "input_audio_buffer.commit"}, {"event_id", CommitEvent(utterance)}}));
}

void RealtimeCodec::Clear(uint64_t from_utterance) {
  Send(R"({"type":"input_audio_buffer.clear"})");
  if (from_utterance == 0 || from_utterance > latest_) return;
  forget_from_ = from_utterance;
  forget_to_ = latest_;
  for (const auto& [item_id, utterance] : utterances_) {
    if (IsForgotten(utterance.number)) Delete(item_id);
  }
}

void RealtimeCodec::Delete(const std::string& item_id) {
  Send(Dump({{"type", "conversation.item.delete"}, {"item_id", item_id}}));
}

void RealtimeCodec::Add(const speech::ChatItem& item) {
  Send(Dump({{"type", "conversation.item.create"}, {"item", ItemJson(item)}}));
}

absl::Status RealtimeCodec::Respond(uint32_t response, const std::string& instructions,
                                    const std::string& tool_choice) {
  if (waiting_.size() > kMaxWaiting)
    return ResourceExhausted("{} responses wait already", kMaxWaiting);
  Json body = Json::object();
  // They take the place of the session's, which hold as well.
  if (!instructions.empty()) {
    body["instructions"] =
        instructions_.empty() ? instructions : instructions_ + "\n\n" + instructions;
  }
  if (!tool_choice.empty() && tool_choice != "auto") body["tool_choice"] = ChoiceJson(tool_choice);
  Json message = {{"type", "response.create"},
                  {"event_id", "response_" + std::to_string(response)}};
  if (!body.empty()) message["response"] = std::move(body);
  Response one;
  one.number = response;
  one.body = Dump(message);
  waiting_.push_back(std::move(one));
  Begin();
  return absl::OkStatus();
}

// One response at a time: the server would refuse another.
void RealtimeCodec::Begin() {
  if (sent_ || waiting_.empty()) return;
  sent_ = true;
  Send(std::exchange(waiting_.front().body, {}));
}

void RealtimeCodec::Cancel(uint32_t response, int64_t now_us) {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const Response& one) { return one.number == response; });
  if (found == waiting_.end() || found->cancelled) return;
  const bool under_way = found == waiting_.begin() && sent_;
  if (!under_way) {
    waiting_.erase(found);
    events_.emplace_back(speech::RealtimeDone{response, "cancelled", "", {}});
    return;
  }
  found->cancelled = true;
  found->cancelled_us = now_us;
  // Before it has begun there is nothing to name: it is cancelled when it does.
  if (!found->id.empty()) Send(Dump({{"type", "response.cancel"}, {"response_id", found->id}}));
}

void RealtimeCodec::Truncate(uint32_t response, int64_t heard_ms) {
  Response* one = nullptr;
  for (Response& past : past_) {
    if (past.number == response) one = &past;
  }
  if (!waiting_.empty() && waiting_.front().number == response) one = &waiting_.front();
  if (one == nullptr) return;
  for (const Part& part : one->parts) {
    const int64_t part_ms = part.samples * 1000 / kRateHz;
    if (heard_ms < part_ms) {
      Send(Dump({{"type", "conversation.item.truncate"},
                 {"item_id", part.item_id},
                 {"content_index", part.content_index},
                 {"audio_end_ms", heard_ms}}));
    }
    heard_ms = std::max<int64_t>(heard_ms - part_ms, 0);
  }
}

void RealtimeCodec::Check(int64_t now_us) {
  if (waiting_.empty() || !waiting_.front().cancelled) return;
  if (now_us - waiting_.front().cancelled_us >= kCancelUs) Over("cancelled", "", {});
}

// ---- from the server ----

class RealtimeCodec::Reader {
 public:
  Reader(RealtimeCodec& codec, const Json& event) : codec_(codec), event_(event) {}

  absl::Status Read() {
    const std::string type = TextAt(event_, "type");
    if (type == "error") return OnError();
    if (type == "session.updated") {
      Tell(speech::RealtimeReady{});
    } else if (type == "input_audio_buffer.speech_started" ||
               type == "input_audio_buffer.speech_stopped") {
      OnSpeech(type.ends_with("started"));
    } else if (type == "input_audio_buffer.committed") {
      OnCommitted();
    } else if (type.starts_with("conversation.item.input_audio_transcription.")) {
      OnTranscript(type.substr(type.rfind('.') + 1));
    } else if (type == "response.created") {
      OnCreated();
    } else if (type == "response.output_audio.delta" || type == "response.audio.delta") {
      return OnAudio();
    } else if (type == "response.output_audio_transcript.delta" ||
               type == "response.audio_transcript.delta" || type == "response.output_text.delta" ||
               type == "response.text.delta") {
      OnText();
    } else if (type == "response.output_item.done") {
      OnItemDone();
    } else if (type == "response.done") {
      OnDone();
    } else if (type.empty()) {
      return Unavailable("the provider sent an event without a type");
    }
    return absl::OkStatus();  // others tell nothing that is of use here
  }

 private:
  void Tell(speech::RealtimeEvent event) { codec_.events_.push_back(std::move(event)); }

  absl::Status OnError() {
    const Json& error = At(event_, "error");
    const std::string text = ErrorNames(error);
    const std::string cause = TextAt(error, "event_id");
    const std::string code = TextAt(error, "code");
    if (cause == kConfigEvent) return InvalidArgument("the provider refused the session: {}", text);
    if (code == "session_expired") return Unavailable("the provider ended the session: {}", text);
    if (!codec_.waiting_.empty() && codec_.sent_ &&
        cause == "response_" + std::to_string(codec_.waiting_.front().number)) {
      codec_.Over("failed", text, {});
      return absl::OkStatus();
    }
    // Nothing of it became an item, e.g. because it was too short: the next item is another's.
    std::erase_if(codec_.committed_,
                  [&](uint64_t utterance) { return cause == CommitEvent(utterance); });
    if (cause.empty() && code.empty() && TextAt(error, "type") == "server_error")
      return Unavailable("the provider failed: {}", text);
    Tell(speech::RealtimeWarning{text});
    return absl::OkStatus();
  }

  void OnCommitted() {
    const std::string item = TextAt(event_, "item_id");
    const bool known = codec_.NumberOf(item, false) != 0;
    const uint64_t number = codec_.NumberOf(item, true);
    // It was on its way when it was taken back.
    if (!known && number != 0 && codec_.IsForgotten(number)) codec_.Delete(item);
  }

  void OnSpeech(bool started) {
    if (!codec_.server_turns_) return;
    const std::string item = TextAt(event_, "item_id");
    if (started && codec_.NumberOf(item, false) == 0) codec_.committed_.push_back(++codec_.heard_);
    const uint64_t number = codec_.NumberOf(item, started);
    if (number != 0) Tell(speech::RealtimeSpeech{started, number});
  }

  void OnTranscript(const std::string& what) {
    const auto found = codec_.utterances_.find(TextAt(event_, "item_id"));
    if (found == codec_.utterances_.end()) return;
    Utterance& utterance = found->second;
    if (what == "delta") {
      utterance.text += TextAt(event_, "delta");
      if (utterance.text.size() > kMaxTranscriptBytes) utterance.text.resize(kMaxTranscriptBytes);
      return Tell(speech::RealtimeTranscript{utterance.number, utterance.text, false});
    }
    if (what == "completed") {
      utterance.text = TextAt(event_, "transcript").substr(0, kMaxTranscriptBytes);
      return Tell(speech::RealtimeTranscript{utterance.number, utterance.text, true});
    }
    if (what != "failed") return;
    Tell(speech::RealtimeWarning{"no transcript: " + ErrorNames(At(event_, "error"))});
    Tell(speech::RealtimeTranscript{utterance.number, utterance.text, true});
  }

  void OnCreated() {
    const std::string id = TextAt(At(event_, "response"), "id");
    if (codec_.waiting_.empty() || !codec_.sent_ || !codec_.waiting_.front().id.empty()) {
      // Nobody asked for it.
      if (codec_.Of(id) == nullptr && !id.empty())
        codec_.Send(Dump({{"type", "response.cancel"}, {"response_id", id}}));
      return;
    }
    Response& response = codec_.waiting_.front();
    response.id = id;
    if (response.cancelled) codec_.Send(Dump({{"type", "response.cancel"}, {"response_id", id}}));
  }

  absl::Status OnAudio() {
    Response* response = codec_.Of(TextAt(event_, "response_id"));
    if (response == nullptr || response->cancelled) return absl::OkStatus();
    std::string bytes;
    const std::string delta = TextAt(event_, "delta");
    if (!absl::Base64Unescape(delta, &bytes))
      return Unavailable("the provider sent audio that is no base64");
    speech::RealtimeAudio audio{response->number, {}};
    audio::AppendSamples(bytes, audio.samples);
    if (audio.samples.empty()) return absl::OkStatus();
    const std::string item = TextAt(event_, "item_id");
    const int64_t content = NumberAt(event_, "content_index");
    std::vector<Part>& parts = response->parts;
    if (parts.empty() || parts.back().item_id != item || parts.back().content_index != content) {
      if (parts.size() >= kMaxParts)
        return Unavailable("the provider cut a response into more than {} pieces", kMaxParts);
      parts.push_back({item, content, 0});
    }
    parts.back().samples += static_cast<int64_t>(audio.samples.size());
    Tell(std::move(audio));
    return absl::OkStatus();
  }

  void OnText() {
    const Response* response = codec_.Of(TextAt(event_, "response_id"));
    if (response == nullptr || response->cancelled) return;
    Tell(speech::RealtimeText{response->number, TextAt(event_, "delta")});
  }

  void OnItemDone() {
    Response* response = codec_.Of(TextAt(event_, "response_id"));
    const Json& item = At(event_, "item");
    if (response == nullptr || response->cancelled || TextAt(item, "type") != "function_call")
      return;
    // One that was cut off is no call.
    const std::string status = TextAt(item, "status");
    if (!status.empty() && status != "completed") return;
    response->calls = true;
    Tell(speech::RealtimeToolCall{
        response->number,
        {TextAt(item, "call_id"), TextAt(item, "name"), TextAt(item, "arguments")}});
  }

  void OnDone() {
    const Json& done = At(event_, "response");
    const Response* response = codec_.Of(TextAt(done, "id"));
    if (response == nullptr) return;
    const std::string status = TextAt(done, "status");
    const Json& details = At(done, "status_details");
    const speech::ChatUsage usage = UsageOf(At(done, "usage"));
    if (status == "cancelled") return codec_.Over("cancelled", "", usage);
    if (status == "failed") {
      return codec_.Over("failed", ErrorNames(At(details, "error")), usage);
    }
    if (status == "incomplete") {
      const bool filtered = TextAt(details, "reason") == "content_filter";
      return codec_.Over(filtered ? "content_filter" : "length", "", usage);
    }
    codec_.Over(response->calls ? "tool_calls" : "stop", "", usage);
  }

  RealtimeCodec& codec_;
  const Json& event_;
};

absl::Status RealtimeCodec::OnMessage(std::string_view json) {
  const Json event = Parse(json);
  if (!event.is_object()) return Unavailable("the provider sent what is no JSON object");
  return Reader(*this, event).Read();
}

// The response under way is over; the next may begin.
void RealtimeCodec::Over(const std::string& finish_reason, const std::string& error,
                         const speech::ChatUsage& usage) {
  Response& response = waiting_.front();
  events_.emplace_back(speech::RealtimeDone{
      response.number, response.cancelled ? "cancelled" : finish_reason, error, usage});
  past_.push_back(std::move(response));
  if (past_.size() > kMaxPast) past_.pop_front();
  waiting_.pop_front();
  sent_ = false;
  Begin();
}

// The number of the utterance that became this item; 0: none did. `make`: it takes the next one
// that was committed.
uint64_t RealtimeCodec::NumberOf(const std::string& item_id, bool make) {
  const auto found = utterances_.find(item_id);
  if (found != utterances_.end()) return found->second.number;
  if (!make || committed_.empty() || item_id.empty()) return 0;
  if (order_.size() >= kMaxUtterances) {
    utterances_.erase(order_.front());
    order_.pop_front();
  }
  order_.push_back(item_id);
  const uint64_t number = committed_.front();
  committed_.pop_front();
  utterances_[item_id].number = number;
  return number;
}

RealtimeCodec::Response* RealtimeCodec::Of(const std::string& response_id) {
  if (waiting_.empty() || !sent_ || response_id.empty()) return nullptr;
  return waiting_.front().id == response_id ? &waiting_.front() : nullptr;
}

std::vector<std::string> RealtimeCodec::TakeOut() { return std::exchange(out_, {}); }
std::vector<speech::RealtimeEvent> RealtimeCodec::TakeEvents() {
  return std::exchange(events_, {});
}

}  // namespace parley::engines
