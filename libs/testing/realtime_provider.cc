#include "testing/realtime_provider.h"

#include <absl/strings/escaping.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "audio/pcm.h"
#include "base/check.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "http/server.h"

namespace parley::testing {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int kPieceMs = 100;
constexpr int64_t kLoud = 600;  // mean level of a piece that counts as speech

std::string TextAt(const Json& json, const char* field) {
  return json.is_object() && json.contains(field) && json[field].is_string()
             ? json[field].get<std::string>()
             : std::string();
}

// What a message may hold: required fields and their kinds, then optional ones.
struct Field {
  const char* name;
  Json::value_t kind;
  bool required = true;
};
using Kind = Json::value_t;
const std::map<std::string, std::vector<Field>>& Shapes() {
  static const std::map<std::string, std::vector<Field>> kShapes = {
      {"session.update", {{"session", Kind::object}}},
      {"input_audio_buffer.append", {{"audio", Kind::string}}},
      {"input_audio_buffer.commit", {}},
      {"input_audio_buffer.clear", {}},
      {"conversation.item.create", {{"item", Kind::object}}},
      {"conversation.item.delete", {{"item_id", Kind::string}}},
      {"conversation.item.truncate",
       {{"item_id", Kind::string},
        {"content_index", Kind::number_unsigned},
        {"audio_end_ms", Kind::number_unsigned}}},
      {"response.create", {{"response", Kind::object, false}}},
      {"response.cancel", {{"response_id", Kind::string, false}}}};
  return kShapes;
}

bool Only(const Json& object, const std::set<std::string>& fields) {
  return object.is_object() &&
         std::all_of(object.items().begin(), object.items().end(),
                     [&](const auto& item) { return fields.contains(item.key()); });
}

std::string ShapeProblem(const Json& message) {
  const std::string type = TextAt(message, "type");
  const auto shape = Shapes().find(type);
  if (shape == Shapes().end()) return "there is no such message";
  std::set<std::string> known = {"type", "event_id"};
  for (const Field& field : shape->second) {
    known.insert(field.name);
    if (!message.contains(field.name)) {
      if (field.required) return std::string(field.name) + " is missing";
    } else if (message[field.name].type() != field.kind) {
      return std::string(field.name) + " is of the wrong kind";
    }
  }
  return Only(message, known) ? "" : "it holds a field that there is not";
}

std::string ToolsProblem(const Json& tools) {
  if (!tools.is_array()) return "tools is no list";
  for (const Json& tool : tools) {
    if (!Only(tool, {"type", "name", "description", "parameters"}) ||
        TextAt(tool, "type") != "function" || TextAt(tool, "name").empty() ||
        !tool["parameters"].is_object()) {
      return "a tool is misshapen: " + tool.dump();
    }
  }
  return "";
}

std::string SessionProblem(const Json& session) {
  if (!Only(session, {"type", "model", "instructions", "output_modalities", "audio", "tools",
                      "tool_choice", "max_output_tokens"})) {
    return "the session holds a field that there is not";
  }
  if (TextAt(session, "type") != "realtime") return "the session's type is not realtime";
  if (session["output_modalities"] != Json::array({"audio"})) return "no audio is asked for";
  const Json pcm = {{"type", "audio/pcm"}, {"rate", RealtimeProvider::kRateHz}};
  const Json& audio = session["audio"];
  if (!Only(audio, {"input", "output"}) || audio["input"]["format"] != pcm ||
      audio["output"]["format"] != pcm) {
    return "the audio's format is not PCM at 24 kHz";
  }
  if (!Only(audio["input"], {"format", "turn_detection", "transcription"}) ||
      !Only(audio["output"], {"format", "voice"})) {
    return "the audio holds a field that there is not";
  }
  const Json& turns = audio["input"]["turn_detection"];
  if (!turns.is_null() &&
      (!Only(turns, {"type", "create_response", "interrupt_response", "silence_duration_ms"}) ||
       TextAt(turns, "type") != "server_vad" || turns["create_response"] != false ||
       turns["interrupt_response"] != false)) {
    return "turn_detection is misshapen";
  }
  return ToolsProblem(session["tools"]);
}

std::string ItemProblem(const Json& item) {
  const std::string type = TextAt(item, "type");
  if (type == "function_call_output") {
    return Only(item, {"type", "call_id", "output"}) && item["output"].is_string() ? ""
                                                                                   : "misshapen";
  }
  if (type == "function_call") {
    return Only(item, {"type", "call_id", "name", "arguments"}) &&
                   Json::parse(TextAt(item, "arguments"), nullptr, false).is_object()
               ? ""
               : "misshapen";
  }
  const std::string role = TextAt(item, "role");
  if (type != "message" || !Only(item, {"type", "role", "content"})) return "misshapen";
  const std::string part = role == "assistant" ? "output_text" : "input_text";
  if (role != "assistant" && role != "user" && role != "system") return "no such role";
  for (const Json& one : item["content"]) {
    if (!Only(one, {"type", "text"}) || TextAt(one, "type") != part) return "content is misshapen";
  }
  return item["content"].size() == 1 ? "" : "it has no content";
}

}  // namespace

// One connection. Its state is guarded by the provider's mutex; what is to happen later waits in
// `later`, for the provider's own thread.
struct RealtimeProvider::Impl {
  struct Session : http::WebSocketListener {
    Session(Impl& impl, std::shared_ptr<http::WebSocket> socket)
        : impl(impl), socket(std::move(socket)) {}
    void OnMessage(http::WebSocketMessage message) override { impl.OnMessage(*this, message); }
    void OnClosed() override {
      MutexLock lock(&impl.mutex);
      open = false;
    }
    Impl& impl;
    const std::shared_ptr<http::WebSocket> socket;
    bool open = true;
    Json config;  // null: not configured
    std::vector<int16_t> buffer;
    std::vector<int16_t> committed;
    std::vector<std::string> said;
    Json outputs = Json::object();
    std::set<std::string> calls;           // open ones, by id
    std::map<std::string, size_t> heard;   // user's items: samples of audio, not answered yet
    std::map<std::string, int64_t> items;  // assistant's items: ms of audio sent
    std::string response;                  // under way; empty: none
    int quiet_pieces = 0;
    bool speaking = false;
    std::string speech_item;
  };

  Impl(Options o, Script s) : options(std::move(o)), script(std::move(s)), executor(2, 64) {
    server = std::make_unique<http::Server>(http::ServerOptions(), executor, log::Logger());
    http::WebSocketOptions upgrade;
    upgrade.refuse = [this](const http::Request& request) -> std::optional<http::Response> {
      if (request.Header("authorization") == "Bearer " + options.key) return std::nullopt;
      http::Response refusal{.status = 401};
      refusal.headers.emplace_back("x-request-id", "req_refused");
      return refusal;
    };
    server->HandleWebSocket(
        "/v1/realtime",
        [this](const http::Request& request,
               const auto& socket) -> std::shared_ptr<http::WebSocketListener> {
          MutexLock lock(&mutex);
          if (!request.query.contains("model")) violations.emplace_back("no model in the URL");
          auto session = std::make_shared<Session>(*this, socket);
          sessions.push_back(session);
          Send(*session, {{"type", "session.created"}, {"session", {{"id", "sess_1"}}}});
          return session;
        },
        upgrade);
    PARLEY_CHECK(server->Start().ok());
    thread = std::thread([this] { Run(); });
  }
  ~Impl() {
    {
      MutexLock lock(&mutex);
      stop = true;
      wake.SignalAll();
    }
    thread.join();
    server->Stop(absl::ZeroDuration());
  }

  // ---- what happens later ----

  void Later(Clock::time_point at, std::function<void()> work)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    later.emplace(at, std::move(work));
    wake.SignalAll();
  }
  void Run() {
    MutexLock lock(&mutex);
    while (!stop) {
      if (later.empty() || later.begin()->first > Clock::now()) {
        wake.WaitFor(&mutex, absl::Milliseconds(5));
        continue;
      }
      const auto work = std::move(later.begin()->second);
      later.erase(later.begin());
      work();
    }
  }

  void Send(Session& session, Json event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    event["event_id"] = "event_" + std::to_string(++events);
    if (session.open) session.socket->Send({event.dump(), true});
  }
  void Wrong(const Json& message, const std::string& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    violations.push_back(TextAt(message, "type") + ": " + why);
  }

  // ---- what comes ----

  void OnMessage(Session& session, const http::WebSocketMessage& in) {
    MutexLock lock(&mutex);
    Json message = Json::parse(in.data, nullptr, false);
    if (!in.text || !message.is_object()) return violations.emplace_back("no JSON object"), void();
    std::vector<int16_t> samples;
    const std::string type = TextAt(message, "type");
    if (type == "input_audio_buffer.append") {
      std::string bytes;
      if (!absl::Base64Unescape(TextAt(message, "audio"), &bytes) || bytes.size() % 2 != 0)
        Wrong(message, "the audio is no base64 of whole samples");
      audio::AppendSamples(bytes, samples);
    }
    if (const std::string problem = ShapeProblem(message); !problem.empty())
      Wrong(message, problem);
    Keep(message, samples);
    if (session.config.is_null() && type != "session.update")
      return Wrong(message, "before session.update");
    if (type == "session.update") return OnConfig(session, message);
    if (type == "input_audio_buffer.append") return OnAudio(session, samples);
    if (type == "input_audio_buffer.commit") return OnCommit(session, message);
    if (type == "input_audio_buffer.clear") return session.buffer.clear();
    if (type == "conversation.item.create") return OnItem(session, message);
    if (type == "conversation.item.delete") return OnDelete(session, message);
    if (type == "conversation.item.truncate") return OnTruncate(session, message);
    if (type == "response.create") return OnRespond(session, message);
    if (type == "response.cancel") return OnCancel(session, message);
  }

  void Keep(Json message, const std::vector<int16_t>& samples)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (const char* dump = std::getenv("PARLEY_REALTIME_DUMP")) {
      std::ofstream(dump, std::ios::app) << message.dump() << "\n";
    }
    if (message.contains("audio")) {
      message.erase("audio");
      message["audio_ms"] = samples.size() * 1000 / kRateHz;
    }
    received.push_back(std::move(message));
  }

  void OnConfig(Session& session, const Json& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (const std::string problem = SessionProblem(message["session"]); !problem.empty())
      Wrong(message, problem);
    session.config = message["session"];
    Send(session, {{"type", "session.updated"}, {"session", session.config}});
  }

  bool Detects(const Session& session) const {
    return !session.config["audio"]["input"]["turn_detection"].is_null();
  }

  void OnAudio(Session& session, const std::vector<int16_t>& samples)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    session.buffer.insert(session.buffer.end(), samples.begin(), samples.end());
    if (!Detects(session) || samples.empty()) return;
    int64_t level = 0;
    for (const int16_t sample : samples) level += std::abs(int{sample});
    const bool loud = level / static_cast<int64_t>(samples.size()) > kLoud;
    const auto ms = static_cast<int>(samples.size()) * 1000 / kRateHz;
    session.quiet_pieces = loud ? 0 : session.quiet_pieces + ms;
    const Json& turns = session.config["audio"]["input"]["turn_detection"];
    if (!session.speaking && loud) {
      session.speaking = true;
      session.speech_item = "item_" + std::to_string(++numbers);
      Send(session, {{"type", "input_audio_buffer.speech_started"},
                     {"audio_start_ms", 0},
                     {"item_id", session.speech_item}});
    } else if (session.speaking &&
               session.quiet_pieces >= turns.value("silence_duration_ms", 500)) {
      session.speaking = false;
      Send(session, {{"type", "input_audio_buffer.speech_stopped"},
                     {"audio_end_ms", 0},
                     {"item_id", session.speech_item}});
      Committed(session, session.speech_item);
    }
  }

  void OnCommit(Session& session, const Json& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (Detects(session)) Wrong(message, "the server commits by itself");
    if (session.buffer.size() < kRateHz / 10) {
      Wrong(message, "less than 100 ms of audio");
      return Send(session, {{"type", "error"},
                            {"error",
                             {{"type", "invalid_request_error"},
                              {"code", "input_audio_buffer_commit_empty"},
                              {"message", "buffer too small"},
                              {"event_id", TextAt(message, "event_id")}}}});
    }
    Committed(session, "item_" + std::to_string(++numbers));
  }

  void Committed(Session& session, const std::string& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    session.heard[item] = session.buffer.size();
    session.committed.insert(session.committed.end(), session.buffer.begin(), session.buffer.end());
    session.buffer.clear();
    session.said.emplace_back("audio");
    Send(session, {{"type", "input_audio_buffer.committed"},
                   {"previous_item_id", nullptr},
                   {"item_id", item}});
    if (!session.config["audio"]["input"].contains("transcription")) return;
    Later(Clock::now() + std::chrono::milliseconds(options.transcript_after_ms),
          [this, weak = Find(session), item]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
            const auto one = weak.lock();
            if (one == nullptr) return;
            const std::string kind = "conversation.item.input_audio_transcription.";
            Send(*one, {{"type", kind + "delta"},
                        {"item_id", item},
                        {"content_index", 0},
                        {"delta", options.transcript.substr(0, options.transcript.find(' '))}});
            Send(*one, {{"type", kind + "completed"},
                        {"item_id", item},
                        {"content_index", 0},
                        {"transcript", options.transcript},
                        {"usage", {{"type", "duration"}, {"seconds", 1}}}});
          });
  }

  std::weak_ptr<Session> Find(const Session& session) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto found = std::find_if(sessions.begin(), sessions.end(),
                                    [&](const auto& one) { return one.get() == &session; });
    return *found;
  }

  void OnItem(Session& session, const Json& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const Json& item = message["item"];
    if (const std::string problem = ItemProblem(item); !problem.empty()) Wrong(message, problem);
    const std::string type = TextAt(item, "type");
    if (type == "function_call") session.calls.insert(TextAt(item, "call_id"));
    if (type == "function_call_output") {
      if (session.calls.erase(TextAt(item, "call_id")) == 0)
        Wrong(message, "no call has this id, or it has its output");
      session.outputs[TextAt(item, "call_id")] = item["output"];
    } else if (type == "message" && TextAt(item, "role") == "user") {
      session.said.push_back(TextAt(item["content"][0], "text"));
    }
    Send(session, {{"type", "conversation.item.added"}, {"item", item}});
  }

  void OnDelete(Session& session, const Json& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto item = session.heard.find(TextAt(message, "item_id"));
    if (item == session.heard.end()) return Wrong(message, "there is no such item");
    session.committed.resize(session.committed.size() -
                             std::min(session.committed.size(), item->second));
    std::erase(session.said, "audio");
    Send(session, {{"type", "conversation.item.deleted"}, {"item_id", item->first}});
    session.heard.erase(item);
  }

  void OnTruncate(Session& session, const Json& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto item = session.items.find(TextAt(message, "item_id"));
    if (item == session.items.end()) return Wrong(message, "there is no such item");
    if (message["audio_end_ms"].get<int64_t>() > item->second)
      return Wrong(message, "the item has less audio");
    if (message["content_index"] != 0) Wrong(message, "there is no such content");
    item->second = message["audio_end_ms"].get<int64_t>();
    Send(session, {{"type", "conversation.item.truncated"},
                   {"item_id", item->first},
                   {"content_index", 0},
                   {"audio_end_ms", item->second}});
  }

  void OnCancel(Session& session, const Json& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const std::string id = TextAt(message, "response_id");
    if (session.response.empty() || (!id.empty() && id != session.response)) {
      // Not a fault: it may have ended on its way.
      Send(session, {{"type", "error"},
                     {"error",
                      {{"type", "invalid_request_error"},
                       {"code", "response_cancel_not_active"},
                       {"message", "no active response"}}}});
      return;
    }
    Done(session, {{"status", "cancelled"}, {"status_details", {{"type", "cancelled"}}}});
  }

  void Done(Session& session, Json response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    response["id"] = std::exchange(session.response, "");
    response["usage"] = {{"input_tokens", 10}, {"output_tokens", 20}, {"total_tokens", 30}};
    Send(session, {{"type", "response.done"}, {"response", std::move(response)}});
  }

  void OnRespond(Session& session, const Json& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (!session.response.empty()) Wrong(message, "a response is under way");
    if (!session.calls.empty()) Wrong(message, "a function call has no output yet");
    const Json body = message.value("response", Json::object());
    if (!Only(body, {"instructions", "tool_choice"})) Wrong(message, "an unknown field");
    Asked asked{.response = ++responses,
                .said = std::exchange(session.said, {}),
                .outputs = std::exchange(session.outputs, Json::object()),
                .instructions = TextAt(body, "instructions"),
                .session = session.config,
                .heard = std::exchange(session.committed, {})};
    const Answer answer = script(asked);
    session.response = "resp_" + std::to_string(responses);
    Send(session, {{"type", "response.created"},
                   {"response", {{"id", session.response}, {"status", "in_progress"}}}});
    if (answer.silent) return;
    if (!answer.fails.empty()) {
      return Done(session, {{"status", "failed"},
                            {"status_details",
                             {{"type", "failed"},
                              {"error", {{"type", "server_error"}, {"message", answer.fails}}}}}});
    }
    Speak(session, answer);
  }

  void Speak(Session& session, const Answer& answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const std::string response = session.response;
    const std::string item = "item_" + std::to_string(++numbers);
    const std::string prefix = options.old_names ? "response.audio" : "response.output_audio";
    const size_t piece = kRateHz * kPieceMs / 1000;
    const size_t count = (answer.samples.size() + piece - 1) / piece;
    auto at = Clock::now();
    for (size_t i = 0; i < count; ++i) {
      at += std::chrono::microseconds(static_cast<int64_t>(kPieceMs * 1000 / answer.speed));
      const size_t from = i * piece;
      const size_t size = std::min(piece, answer.samples.size() - from);
      const std::string_view bytes = audio::AsBytes(std::span(answer.samples).subspan(from, size));
      const auto text_at = [&](size_t n) { return answer.text.size() * n / count; };
      Json words = {{"type", prefix + "_transcript.delta"},
                    {"response_id", response},
                    {"item_id", item},
                    {"output_index", 0},
                    {"content_index", 0},
                    {"delta", answer.text.substr(text_at(i), text_at(i + 1) - text_at(i))}};
      Json audio = {
          {"type", prefix + ".delta"}, {"response_id", response},
          {"item_id", item},           {"output_index", 0},
          {"content_index", 0},        {"delta", absl::Base64Escape({bytes.data(), bytes.size()})}};
      Later(at, [this, weak = Find(session), response, item, ms = size * 1000 / kRateHz,
                 words = std::move(words), audio = std::move(audio), last = answer.hangs_up]()
                    ABSL_NO_THREAD_SAFETY_ANALYSIS {
                      const auto one = weak.lock();
                      if (one == nullptr || one->response != response) return;  // cancelled
                      one->items[item] += static_cast<int64_t>(ms);
                      Send(*one, words);
                      Send(*one, audio);
                      if (last) one->socket->Close(1011, "internal error");
                    });
    }
    Later(at, [this, weak = Find(session), response, calls = answer.calls]()
                  ABSL_NO_THREAD_SAFETY_ANALYSIS {
                    const auto one = weak.lock();
                    if (one == nullptr || one->response != response) return;
                    for (const Call& call : calls) {
                      const std::string id = "call_" + std::to_string(++numbers);
                      one->calls.insert(id);
                      Send(*one, {{"type", "response.output_item.done"},
                                  {"response_id", response},
                                  {"output_index", 1},
                                  {"item",
                                   {{"type", "function_call"},
                                    {"status", "completed"},
                                    {"call_id", id},
                                    {"name", call.name},
                                    {"arguments", call.arguments_json}}}});
                    }
                    Done(*one, {{"status", "completed"}});
                  });
  }

  const Options options;
  const Script script;
  Executor executor;
  std::unique_ptr<http::Server> server;
  mutable Mutex mutex;
  CondVar wake;
  bool stop ABSL_GUARDED_BY(mutex) = false;
  std::multimap<Clock::time_point, std::function<void()>> later ABSL_GUARDED_BY(mutex);
  std::vector<std::shared_ptr<Session>> sessions ABSL_GUARDED_BY(mutex);
  std::vector<std::string> violations ABSL_GUARDED_BY(mutex);
  std::vector<Json> received ABSL_GUARDED_BY(mutex);
  int events ABSL_GUARDED_BY(mutex) = 0;
  int numbers ABSL_GUARDED_BY(mutex) = 0;
  int responses ABSL_GUARDED_BY(mutex) = 0;
  std::thread thread;
};

RealtimeProvider::RealtimeProvider(Options options, Script script)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(script))) {}
RealtimeProvider::RealtimeProvider(Script script)
    : RealtimeProvider(Options(), std::move(script)) {}
RealtimeProvider::~RealtimeProvider() = default;

std::string RealtimeProvider::url() const {
  return "http://127.0.0.1:" + std::to_string(impl_->server->port()) + "/v1";
}
std::vector<std::string> RealtimeProvider::violations() const {
  MutexLock lock(&impl_->mutex);
  return impl_->violations;
}
std::vector<Json> RealtimeProvider::received() const {
  MutexLock lock(&impl_->mutex);
  return impl_->received;
}
std::vector<Json> RealtimeProvider::received(const std::string& type) const {
  std::vector<Json> of_type = received();
  std::erase_if(of_type, [&](const Json& one) { return TextAt(one, "type") != type; });
  return of_type;
}
int RealtimeProvider::sessions() const {
  MutexLock lock(&impl_->mutex);
  return static_cast<int>(impl_->sessions.size());
}
void RealtimeProvider::HangUp() {
  MutexLock lock(&impl_->mutex);
  for (const auto& session : impl_->sessions) session->socket->Close(1001, "bye");
}

}  // namespace parley::testing
