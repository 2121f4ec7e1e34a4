#include "engines/openai/realtime.h"

#include <utility>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engines/openai/provider.h"
#include "engines/openai/realtime_codec.h"
#include "http/client.h"

namespace parley::engines {
namespace {

// What the socket's thread and the stream's caller share.
class Session : public http::DialListener {
 public:
  // `id`: of the request. `refused`: what it means when the key is not taken.
  Session(RealtimeCodec codec, speech::RealtimeSink sink, std::string id, absl::Status refused)
      : id_(std::move(id)),
        refused_(std::move(refused)),
        codec_(std::move(codec)),
        sink_(std::move(sink)) {}

  void Connect(http::WebSocketClient& client, http::Dial dial,
               const std::shared_ptr<Session>& self) {
    MutexLock lock(&mutex_);
    socket_ = client.Open(std::move(dial), self);
    Flush();
  }
  // Nothing is heard from it any more.
  void Leave() {
    MutexLock lock(&mutex_);
    sink_ = nullptr;
    socket_->Close(1000);
  }
  template <typename Work>
  auto Do(Work work) {
    MutexLock lock(&mutex_);
    if constexpr (std::is_void_v<decltype(work(codec_))>) {
      work(codec_);
      Flush();
    } else {
      auto result = work(codec_);
      Flush();
      return result;
    }
  }

  void OnHeader(std::string_view /*name*/, std::string_view value) override {
    MutexLock lock(&mutex_);
    their_id_ = value;
  }
  void OnOpen() override {}
  void OnMessage(http::WebSocketMessage message) override {
    MutexLock lock(&mutex_);
    if (sink_ == nullptr || !message.text) return;
    const absl::Status status = codec_.OnMessage(message.data);
    Flush();
    if (status.ok()) return;
    Fail(status);
    socket_->Close(1000);
  }
  void OnClosed(const absl::Status& status) override {
    MutexLock lock(&mutex_);
    if (sink_ == nullptr) return;
    if (status.ok()) return Fail(Unavailable("the provider closed the session"));
    if (absl::IsUnauthenticated(status) && !refused_.ok()) return Fail(refused_);
    // Its address, its key, its load: another attempt or another provider may do.
    Fail(Unavailable("--llm-openai-base-url: {}", Message(status)));
  }

 private:
  void Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (std::string& text : codec_.TakeOut()) {
      if (socket_->Send({std::move(text), true}) || sink_ == nullptr) continue;
      Fail(Unavailable("the provider does not read"));
      socket_->Close(1011);
    }
    for (speech::RealtimeEvent& event : codec_.TakeEvents()) {
      if (sink_ != nullptr) sink_(std::move(event));
    }
  }
  void Fail(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (const auto sink = std::exchange(sink_, nullptr)) {
      sink(speech::RealtimeFailed{openai::WithIds(status, id_, their_id_)});
    }
  }

  const std::string id_;
  const absl::Status refused_;
  Mutex mutex_;
  std::string their_id_ ABSL_GUARDED_BY(mutex_);
  RealtimeCodec codec_ ABSL_GUARDED_BY(mutex_);
  speech::RealtimeSink sink_ ABSL_GUARDED_BY(mutex_);  // null: over
  std::shared_ptr<http::WebSocket> socket_ ABSL_GUARDED_BY(mutex_);
};

class Stream : public speech::RealtimeStream {
 public:
  explicit Stream(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  ~Stream() override { session_->Leave(); }

  void Audio(std::span<const int16_t> samples) override {
    session_->Do([&](RealtimeCodec& codec) { codec.Audio(samples); });
  }
  void Commit(uint64_t utterance) override {
    session_->Do([&](RealtimeCodec& codec) { codec.Commit(utterance); });
  }
  void Clear(uint64_t from) override {
    session_->Do([&](RealtimeCodec& codec) { codec.Clear(from); });
  }
  void Add(const speech::ChatItem& item) override {
    session_->Do([&](RealtimeCodec& codec) { codec.Add(item); });
  }
  absl::Status Respond(uint32_t response, const std::string& instructions,
                       const std::string& tool_choice) override {
    return session_->Do(
        [&](RealtimeCodec& codec) { return codec.Respond(response, instructions, tool_choice); });
  }
  void Cancel(uint32_t response) override {
    session_->Do([&](RealtimeCodec& codec) { codec.Cancel(response, Now()); });
  }
  void Truncate(uint32_t response, absl::Duration heard) override {
    session_->Do(
        [&](RealtimeCodec& codec) { codec.Truncate(response, absl::ToInt64Milliseconds(heard)); });
  }
  void Check() override {
    session_->Do([](RealtimeCodec& codec) { codec.Check(Now()); });
  }

 private:
  static int64_t Now() { return Clock::Real().MonotonicMicros(); }
  const std::shared_ptr<Session> session_;
};

}  // namespace

OpenAiRealtimeEngine::OpenAiRealtimeEngine(OpenAiOptions options,
                                           std::unique_ptr<http::WebSocketClient> client)
    : options_(std::move(options)), client_(std::move(client)) {}

int OpenAiRealtimeEngine::rate_hz() const { return RealtimeCodec::kRateHz; }

absl::StatusOr<std::unique_ptr<speech::RealtimeStream>> OpenAiRealtimeEngine::Open(
    const speech::RealtimeConfig& config, speech::RealtimeSink sink) {
  if (config.model.model.empty()) return InvalidArgument("openai-realtime needs a model");
  PARLEY_ASSIGN_OR_RETURN(RealtimeCodec codec, RealtimeCodec::Create(config, config.model.model));
  http::Dial dial;
  dial.url = options_.base_url + "/realtime?model=" + http::UrlEncode(config.model.model);
  const std::string& project = config.caller.project;
  if (const std::string& key = options_.keys.Of(project); !key.empty())
    dial.headers.emplace_back("Authorization", "Bearer " + key);
  const std::string id = openai::NewRequestId();
  dial.headers.emplace_back(openai::kOurIdHeader, id);
  dial.wanted = {openai::kTheirIdHeader};
  auto session = std::make_shared<Session>(std::move(codec), std::move(sink), id,
                                           options_.keys.HasOwn(project)
                                               ? speech::OwnKeyRefused("openai-realtime", project)
                                               : absl::OkStatus());
  session->Connect(*client_, std::move(dial), session);
  return std::make_unique<Stream>(std::move(session));
}

}  // namespace parley::engines
