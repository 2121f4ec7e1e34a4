#include "engines/deepgram/deepgram.h"

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <utility>

#include "audio/pcm.h"
#include "base/clock.h"
#include "base/status.h"
#include "engines/deepgram/messages.h"
#include "speech/provider_words.h"

namespace parley::engines {
namespace {

constexpr int kRateHz = 16'000;
constexpr size_t kMaxAsked = 256;
constexpr size_t kMaxText = 64 << 10;           // of one utterance
constexpr size_t kPieceSamples = kRateHz / 10;  // of what is sent at a time, at most
constexpr absl::Duration kTick = absl::Milliseconds(100);
constexpr int64_t kQuietUs = 4'000'000;  // every 3 to 5 s, says the provider
constexpr absl::Duration kPing = absl::Seconds(1);
constexpr absl::Duration kSilence = absl::Seconds(4);
// What is finally transcribed ends where a Finalize was asked, but for rounding.
constexpr int64_t kRoundingMs = 20;
// A Finalize of which little audio is left may stay without an answer: when all of that was quiet
// and no partial speaks of it, nothing is missed after this.
constexpr int64_t kNothingLeftUs = 250'000;
constexpr int kQuietSample = 200;  // -44 dBov: below any voice
constexpr char kIdHeader[] = "dg-request-id";

int64_t NowUs() { return Clock::Real().MonotonicMicros(); }

// Why there is no connection, or no longer, as a chain needs to hear it.
absl::Status WhyClosed(const absl::Status& why, const std::string& close_frame) {
  switch (why.code()) {
    case absl::StatusCode::kOk:
      return Unavailable("the provider closed the stream{}", close_frame);
    case absl::StatusCode::kResourceExhausted:
      return WithReason(why, "PROVIDER_BUSY", {{"retry_after_ms", "1000"}});
    case absl::StatusCode::kUnauthenticated:
      // The operator's key, not the caller's.
      return WithReason(Unavailable("the provider refused this server's key: check "
                                    "--stt-deepgram-key-file or DEEPGRAM_API_KEY"),
                        "PROVIDER_KEY_REFUSED");
    case absl::StatusCode::kInvalidArgument:
      return Unavailable("--stt-deepgram-base-url: {}", Message(why));
    default:
      return Unavailable("{}", Message(why));
  }
}

}  // namespace

// What a stream and its connection share.
class DeepgramStt::Line : public http::DialListener {
 public:
  Line(speech::SttSink sink, bool partials, std::string language)
      : partials_(partials), language_(std::move(language)), sink_(std::move(sink)) {}

  void SetSocket(std::shared_ptr<http::WebSocket> socket) {
    MutexLock lock(&mutex_);
    socket_ = std::move(socket);
  }
  // OK: connected.
  absl::Status WaitOpen(absl::Duration timeout) {
    const int64_t until_us = NowUs() + absl::ToInt64Microseconds(timeout);
    MutexLock lock(&mutex_);
    while (!open_ && !closed_) {
      const int64_t left_us = until_us - NowUs();
      if (left_us <= 0)
        return Unavailable("the provider did not accept within {}", absl::FormatDuration(timeout));
      changed_.WaitFor(&mutex_, absl::Microseconds(left_us));
    }
    return closed_ ? why_ : absl::OkStatus();
  }
  // With the id that the provider gave the stream, by which it knows it.
  absl::Status Named(const absl::Status& status) {
    MutexLock lock(&mutex_);
    return WithId(status);
  }
  absl::Status Audio(std::span<const int16_t> samples) {
    MutexLock lock(&mutex_);
    for (; !samples.empty(); samples = samples.subspan(std::min(samples.size(), kPieceSamples))) {
      const auto piece = samples.first(std::min(samples.size(), kPieceSamples));
      PARLEY_RETURN_IF_ERROR(Send({std::string(audio::AsBytes(piece)), false}));
      sent_ += piece.size();
      const bool loud = std::any_of(piece.begin(), piece.end(),
                                    [](int16_t sample) { return std::abs(sample) > kQuietSample; });
      if (loud) loud_until_ms_ = SentMs();
    }
    return absl::OkStatus();
  }
  // `wanted`: false, and what was heard is forgotten.
  absl::Status Ask(uint64_t utterance, bool wanted) {
    MutexLock lock(&mutex_);
    if (asked_.size() >= kMaxAsked)
      return ResourceExhausted("{} finals are awaited already", kMaxAsked);
    asked_.push_back({utterance, SentMs(), NowUs(), wanted});
    AnswerWhatIsCovered();
    if (asked_.empty()) return absl::OkStatus();
    if (finalizes_.size() >= kMaxAsked) finalizes_.pop_front();
    finalizes_.push_back(SentMs());
    return Send({std::string(deepgram::kFinalize), true});
  }
  void Tick() {
    MutexLock lock(&mutex_);
    if (!open_ || closed_) return;
    const int64_t now_us = NowUs();
    if (now_us - sent_us_ >= kQuietUs)
      static_cast<void>(Send({std::string(deepgram::kKeepAlive), true}));
    if (asked_.empty() || words_coming_ || now_us - asked_.front().since_us < kNothingLeftUs ||
        covered_ms_ == 0 || loud_until_ms_ > covered_ms_ + kRoundingMs) {
      return;
    }
    covered_ms_ = std::max(covered_ms_, asked_.front().at_ms);
    AnswerWhatIsCovered();
  }
  void Leave() {
    MutexLock lock(&mutex_);
    sink_ = nullptr;
    if (socket_ == nullptr) return;
    static_cast<void>(Send({std::string(deepgram::kCloseStream), true}));
    socket_->Close(1000);
  }

 private:
  struct Asked {
    uint64_t utterance = 0;
    int64_t at_ms = 0;  // of the stream's audio
    int64_t since_us = 0;
    bool wanted = true;
  };

  void OnHeader(std::string_view /*name*/, std::string_view value) override {
    MutexLock lock(&mutex_);
    request_id_ = speech::IdOnly(value);
  }
  void OnOpen() override {
    MutexLock lock(&mutex_);
    open_ = true;
    sent_us_ = NowUs();
    changed_.SignalAll();
  }
  void OnMessage(http::WebSocketMessage message) override {
    auto parsed = deepgram::ParseMessage(message.data);
    MutexLock lock(&mutex_);
    if (!parsed.ok()) return Fail(parsed.status());
    if (!parsed->request_id.empty()) request_id_ = parsed->request_id;
    switch (parsed->kind) {
      case deepgram::Message::Kind::kResults:
        return OnResults(parsed->results);
      case deepgram::Message::Kind::kSpeechStarted:
        return Tell(speech::SttActivity{true, static_cast<int32_t>(parsed->at_ms)});
      case deepgram::Message::Kind::kUtteranceEnd:
        return Ended(parsed->at_ms);
      case deepgram::Message::Kind::kError:
        return Fail(Unavailable("the provider reports an error: {}", parsed->error));
      case deepgram::Message::Kind::kOther:
        return;
    }
  }
  void OnCloseFrame(int code, std::string_view reason) override {
    MutexLock lock(&mutex_);
    const std::string_view name = speech::NameOnly(reason);
    close_frame_ = fmt::format(" ({}{}{})", code, name.empty() ? "" : " ", name);
  }
  void OnClosed(const absl::Status& why) override {
    MutexLock lock(&mutex_);
    closed_ = true;
    socket_ = nullptr;
    why_ = WhyClosed(why, close_frame_);
    changed_.SignalAll();
    if (open_) Fail(why_);
  }

  void OnResults(const deepgram::Results& results) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    // Of what its final was given for already.
    const bool late = results.end_ms > 0 && results.end_ms <= answered_ms_ + kRoundingMs;
    if (!results.final) {
      if (late) return;
      words_coming_ = words_coming_ || !results.transcript.text.empty();
      return Interim(results.transcript);
    }
    words_coming_ = false;
    if (!late) Add(gathered_, results.transcript);
    if (gathered_.text.size() > kMaxText)
      return Fail(Unavailable("the provider says more than anybody can"));
    if (results.speech_final && !results.transcript.words.empty())
      Ended(results.transcript.words.back().end_ms);
    covered_ms_ = std::max(covered_ms_, results.end_ms);
    if (results.finalized) Confirm();
    AnswerWhatIsCovered();
  }
  // The answer to a Finalize: to all that lie before what is covered, to the oldest in any case.
  void Confirm() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    bool any = false;
    while (!finalizes_.empty() && (!any || finalizes_.front() <= covered_ms_ + kRoundingMs)) {
      covered_ms_ = std::max(covered_ms_, finalizes_.front());
      finalizes_.pop_front();
      any = true;
    }
  }
  void Ended(int64_t at_ms) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (at_ms <= ended_ms_) return;  // both of its ways to say it may be on
    ended_ms_ = at_ms;
    Tell(speech::SttActivity{false, static_cast<int32_t>(at_ms)});
  }
  void Interim(const speech::SttTranscript& piece) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!partials_ || (!asked_.empty() && !asked_.front().wanted)) return;
    speech::SttPartial partial{gathered_};
    Add(partial.transcript, piece);
    if (!partial.transcript.text.empty()) Tell(std::move(partial));
  }
  void Add(speech::SttTranscript& to, const speech::SttTranscript& piece) const {
    if (!piece.text.empty()) {
      to.text += (to.text.empty() ? "" : " ") + piece.text;
      to.confidence =
          to.confidence == 0 ? piece.confidence : std::min(to.confidence, piece.confidence);
    }
    to.words.insert(to.words.end(), piece.words.begin(), piece.words.end());
    if (!piece.language.empty()) to.language = piece.language;
    if (to.language.empty()) to.language = language_;
  }
  void AnswerWhatIsCovered() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (!asked_.empty() && covered_ms_ + kRoundingMs >= asked_.front().at_ms) {
      const Asked asked = asked_.front();
      asked_.pop_front();
      answered_ms_ = asked.at_ms;
      speech::SttFinal final{std::exchange(gathered_, speech::SttTranscript())};
      final.transcript.utterance = asked.utterance;
      if (asked.wanted) Tell(std::move(final));
    }
  }

  absl::Status Send(http::WebSocketMessage message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (closed_) return why_;
    if (socket_ == nullptr) return Unavailable("not connected");
    sent_us_ = NowUs();
    if (!socket_->Send(std::move(message))) return Unavailable("the provider does not take audio");
    return absl::OkStatus();
  }
  void Tell(speech::SttEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (sink_) sink_(std::move(event));
  }
  void Fail(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (const speech::SttSink sink = std::exchange(sink_, nullptr)) {
      sink(speech::SttFailed{WithId(status)});
    }
  }
  absl::Status WithId(const absl::Status& status) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (request_id_.empty() || status.ok()) return status;
    return Annotate(status, fmt::format("request there {}", request_id_));
  }
  int64_t SentMs() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return static_cast<int64_t>(sent_) * 1000 / kRateHz;
  }

  const bool partials_;
  const std::string language_;  // that was asked for
  Mutex mutex_;
  CondVar changed_;
  speech::SttSink sink_ ABSL_GUARDED_BY(mutex_);  // null: nobody listens any more
  std::shared_ptr<http::WebSocket> socket_ ABSL_GUARDED_BY(mutex_);
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status why_ ABSL_GUARDED_BY(mutex_);
  std::string close_frame_ ABSL_GUARDED_BY(mutex_);
  std::string request_id_ ABSL_GUARDED_BY(mutex_);
  uint64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;  // samples
  int64_t sent_us_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t loud_until_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Asked> asked_ ABSL_GUARDED_BY(mutex_);
  std::deque<int64_t> finalizes_ ABSL_GUARDED_BY(mutex_);  // at_ms of those not confirmed
  speech::SttTranscript gathered_
      ABSL_GUARDED_BY(mutex_);                      // finally transcribed, not yet asked for
  int64_t covered_ms_ ABSL_GUARDED_BY(mutex_) = 0;  // of the audio, by gathered_ and before
  int64_t answered_ms_ ABSL_GUARDED_BY(mutex_) = -kRoundingMs;  // … by finals
  int64_t ended_ms_ ABSL_GUARDED_BY(mutex_) = 0;                // the last end that was told
  bool words_coming_ ABSL_GUARDED_BY(mutex_) = false;           // a partial has some
};

class DeepgramStt::Stream : public speech::SttStream {
 public:
  explicit Stream(std::shared_ptr<Line> line) : line_(std::move(line)) {}
  ~Stream() override { line_->Leave(); }
  absl::Status Write(std::span<const int16_t> samples) override { return line_->Audio(samples); }
  absl::Status EndUtterance(uint64_t utterance) override { return line_->Ask(utterance, true); }
  absl::Status Reset() override { return line_->Ask(0, false); }

 private:
  const std::shared_ptr<Line> line_;
};

absl::StatusOr<std::unique_ptr<DeepgramStt>> DeepgramStt::Create(DeepgramOptions options) {
  PARLEY_ASSIGN_OR_RETURN(auto client, http::WebSocketClient::Start());
  std::unique_ptr<DeepgramStt> engine(new DeepgramStt(std::move(options)));
  engine->client_ = std::move(client);
  return engine;
}

DeepgramStt::DeepgramStt(DeepgramOptions options)
    : options_(std::move(options)), thread_([this] { loop_.Run(); }) {
  info_.name = "deepgram";
  info_.description = "Deepgram-style streaming server at " + options_.base_url;
  info_.streaming = true;
  info_.sample_rate_hz = kRateHz;
}

DeepgramStt::~DeepgramStt() {
  client_.reset();
  loop_.Post([this] {
    timer_.Stop();
    loop_.Stop();
  });
  thread_.join();
}

void DeepgramStt::Watch(const std::shared_ptr<Line>& line) {
  loop_.Post([this, weak = std::weak_ptr(line)] {
    if (lines_.empty()) timer_.StartRepeating(kTick, [this] { Tick(); });
    lines_.push_back(weak);
  });
}

void DeepgramStt::Tick() {
  for (auto it = lines_.begin(); it != lines_.end();) {
    if (const auto line = it->lock()) {
      line->Tick();
      ++it;
    } else {
      it = lines_.erase(it);
    }
  }
  if (lines_.empty()) timer_.Stop();
}

absl::StatusOr<std::unique_ptr<speech::SttStream>> DeepgramStt::Open(
    const speech::SttConfig& config, speech::SttSink sink) {
  if (!config.grammar.empty())
    return InvalidArgument("the engine deepgram takes no grammar; `phrases` are its key terms");
  http::Dial dial;
  PARLEY_ASSIGN_OR_RETURN(
      dial.url, deepgram::ListenUrl(options_.base_url,
                                    config.model.empty() ? options_.default_model : config.model,
                                    config, kRateHz));
  const std::string& project = config.caller.project;
  if (const std::string& key = options_.keys.Of(project); !key.empty())
    dial.headers.emplace_back("authorization", "Token " + key);
  dial.timeout = options_.connect_timeout;
  dial.ping = kPing;
  dial.silence = kSilence;
  dial.wanted = {kIdHeader};
  const auto line =
      std::make_shared<Line>(std::move(sink), config.interim_results, config.language);
  auto stream = std::make_unique<Stream>(line);  // leaves the line, whatever happens
  line->SetSocket(client_->Open(std::move(dial), line));
  const absl::Status open = line->WaitOpen(options_.connect_timeout);
  if (ReasonOf(open).reason == "PROVIDER_KEY_REFUSED" && options_.keys.HasOwn(project))
    return line->Named(speech::OwnKeyRefused("deepgram", project));
  PARLEY_RETURN_IF_ERROR(line->Named(open));
  Watch(line);
  return stream;
}

}  // namespace parley::engines
