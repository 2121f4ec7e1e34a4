#include "gateway/metered.h"

#include <string>
#include <utility>

#include "base/status.h"

namespace parley::gateway {
namespace {

using speech::Caller;
using speech::Cancellation;
using speech_redis::Budget;
namespace units = speech_redis::units;

using Permit = std::unique_ptr<Budget::Permit>;

// What all three kinds do.
class Books {
 public:
  Books(Meter meter, std::string engine, bool embedded)
      : meter_(meter), engine_(std::move(engine)), remote_(!embedded) {}

  absl::Status CheckCaps(const Caller& caller) const {
    if (!remote_ || meter_.ledger == nullptr) return absl::OkStatus();
    absl::Status status = meter_.ledger->Check(caller.project, caller.session);
    if (!status.ok() && meter_.capped != nullptr) meter_.capped->Increment();
    return status;
  }
  // Null: nothing is limited.
  absl::StatusOr<Permit> Admit(const Caller& caller, int64_t tokens,
                               const Cancellation& cancel) const {
    if (!remote_) return Permit();
    Budget* budget = meter_.budget;
    if (meter_.own_budgets != nullptr) {
      const auto own = meter_.own_budgets->find(caller.project);
      if (own != meter_.own_budgets->end()) budget = own->second;
    }
    if (budget == nullptr) return Permit();
    return budget->Acquire(caller.project, tokens, cancel);
  }
  void Charge(const Caller& caller, std::string_view unit, int64_t amount) const {
    if (meter_.ledger != nullptr)
      meter_.ledger->Charge(caller.project, caller.session, unit, engine_, remote_, amount);
  }

 private:
  const Meter meter_;
  const std::string engine_;
  const bool remote_;
};

// ---- speech to text ----

class MeteredStt : public speech::SttEngine {
 public:
  MeteredStt(std::unique_ptr<speech::SttEngine> engine, Meter meter)
      : engine_(std::move(engine)), books_(meter, engine_->info().name, engine_->info().embedded) {}

  const speech::SttEngineInfo& info() const override { return engine_->info(); }
  absl::StatusOr<std::unique_ptr<speech::SttStream>> Open(const speech::SttConfig& config,
                                                          speech::SttSink sink) override;

 private:
  class Stream;
  const std::unique_ptr<speech::SttEngine> engine_;
  const Books books_;
};

class MeteredStt::Stream : public speech::SttStream {
 public:
  Stream(const Books& books, Caller caller, int rate_hz, Permit permit,
         std::unique_ptr<speech::SttStream> stream)
      : books_(books),
        caller_(std::move(caller)),
        rate_hz_(rate_hz),
        permit_(std::move(permit)),
        stream_(std::move(stream)) {}
  ~Stream() override {
    stream_.reset();  // before its place goes to another
    WriteDown();
  }

  absl::Status Write(std::span<const int16_t> samples) override {
    if (std::exchange(between_utterances_, false))
      PARLEY_RETURN_IF_ERROR(books_.CheckCaps(caller_));
    samples_ += samples.size();
    return stream_->Write(samples);
  }
  absl::Status EndUtterance(uint64_t utterance) override {
    WriteDown();
    between_utterances_ = true;
    return stream_->EndUtterance(utterance);
  }
  absl::Status Reset() override { return stream_->Reset(); }

 private:
  void WriteDown() {
    const uint64_t ms = samples_ * 1000 / static_cast<uint64_t>(rate_hz_);
    books_.Charge(caller_, units::kSttMs, static_cast<int64_t>(ms));
    samples_ -= ms * static_cast<uint64_t>(rate_hz_) / 1000;
  }

  const Books& books_;
  const Caller caller_;
  const int rate_hz_;
  const Permit permit_;
  std::unique_ptr<speech::SttStream> stream_;
  uint64_t samples_ = 0;  // not written down yet
  bool between_utterances_ = false;
};

absl::StatusOr<std::unique_ptr<speech::SttStream>> MeteredStt::Open(const speech::SttConfig& config,
                                                                    speech::SttSink sink) {
  PARLEY_RETURN_IF_ERROR(books_.CheckCaps(config.caller));
  PARLEY_ASSIGN_OR_RETURN(Permit permit, books_.Admit(config.caller, 0, Cancellation()));
  PARLEY_ASSIGN_OR_RETURN(auto stream, engine_->Open(config, std::move(sink)));
  return std::make_unique<Stream>(books_, config.caller, info().sample_rate_hz, std::move(permit),
                                  std::move(stream));
}

// ---- text to speech ----

class MeteredTts : public speech::TtsEngine {
 public:
  MeteredTts(std::unique_ptr<speech::TtsEngine> engine, Meter meter)
      : engine_(std::move(engine)),
        books_(meter, std::string(engine_->name()), engine_->embedded()) {}

  std::string_view name() const override { return engine_->name(); }
  std::string version() const override { return engine_->version(); }
  bool embedded() const override { return engine_->embedded(); }
  std::vector<speech::TtsVoiceInfo> Voices() const override { return engine_->Voices(); }
  absl::StatusOr<std::unique_ptr<speech::TtsStream>> Open(const speech::TtsConfig& config) override;

 private:
  class Stream;
  const std::unique_ptr<speech::TtsEngine> engine_;
  const Books books_;
};

class MeteredTts::Stream : public speech::TtsStream {
 public:
  Stream(const Books& books, Caller caller, std::unique_ptr<speech::TtsStream> stream)
      : books_(books), caller_(std::move(caller)), stream_(std::move(stream)) {}

  int sample_rate_hz() const override { return stream_->sample_rate_hz(); }
  absl::Status Speak(std::string_view sentence, const speech::TtsSink& sink,
                     const Cancellation& cancel) override {
    PARLEY_ASSIGN_OR_RETURN(const Permit permit, books_.Admit(caller_, 0, cancel));
    bool begun = false;
    absl::Status status = stream_->Speak(
        sentence,
        [&](std::span<const int16_t> samples, const std::vector<speech::WordTime>& words) {
          begun = begun || !samples.empty();
          return sink(samples, words);
        },
        cancel);
    // Who got a part of it pays for all of it: so do providers.
    if (begun) books_.Charge(caller_, units::kTtsCharacters, static_cast<int64_t>(sentence.size()));
    return status;
  }

 private:
  const Books& books_;
  const Caller caller_;
  const std::unique_ptr<speech::TtsStream> stream_;
};

absl::StatusOr<std::unique_ptr<speech::TtsStream>> MeteredTts::Open(
    const speech::TtsConfig& config) {
  PARLEY_RETURN_IF_ERROR(books_.CheckCaps(config.caller));
  PARLEY_ASSIGN_OR_RETURN(auto stream, engine_->Open(config));
  return std::make_unique<Stream>(books_, config.caller, std::move(stream));
}

// ---- language models ----

// Four bytes are about a token; what a model answers in a call is short.
constexpr size_t kBytesPerToken = 4;
constexpr int64_t kAnswerTokens = 150;
constexpr size_t kImageTokens = 765;  // what OpenAI counts for one of 1024 x 1024

int64_t GuessTokens(const speech::ChatPrompt& prompt) {
  size_t bytes = 0;
  for (const speech::ChatItem& item : prompt.items) {
    if (const auto* message = std::get_if<speech::ChatMessage>(&item)) {
      bytes += message->text.size() + message->images.size() * kImageTokens * kBytesPerToken;
    } else if (const auto* call = std::get_if<speech::ChatToolCall>(&item)) {
      bytes += call->arguments_json.size() + call->name.size();
    } else {
      bytes += std::get<speech::ChatToolResult>(item).output.size();
    }
  }
  for (const speech::ChatTool& tool : prompt.tools)
    bytes += tool.description.size() + tool.parameters_json.size();
  return static_cast<int64_t>(bytes / kBytesPerToken) +
         prompt.config.max_tokens.value_or(kAnswerTokens);
}

class MeteredLlm : public speech::LlmEngine {
 public:
  MeteredLlm(std::unique_ptr<speech::LlmEngine> engine, Meter meter)
      : engine_(std::move(engine)),
        books_(meter, std::string(engine_->name()), engine_->embedded()) {}

  std::string_view name() const override { return engine_->name(); }
  bool embedded() const override { return engine_->embedded(); }
  std::vector<speech::LlmModelInfo> Models() const override { return engine_->Models(); }

  absl::StatusOr<speech::ChatDone> Chat(const speech::ChatPrompt& prompt,
                                        const speech::ChatSink& sink,
                                        const Cancellation& cancel) override {
    const bool goes_on = !prompt.items.empty() &&
                         std::holds_alternative<speech::ChatToolResult>(prompt.items.back());
    if (!goes_on) PARLEY_RETURN_IF_ERROR(books_.CheckCaps(prompt.caller));
    PARLEY_ASSIGN_OR_RETURN(const Permit permit,
                            books_.Admit(prompt.caller, GuessTokens(prompt), cancel));
    absl::StatusOr<speech::ChatDone> done = engine_->Chat(prompt, sink, cancel);
    if (!done.ok()) return done;
    const speech::ChatUsage& usage = done->usage;
    if (permit != nullptr && usage.input_tokens + usage.output_tokens > 0)
      permit->Settle(usage.input_tokens + usage.output_tokens);
    books_.Charge(prompt.caller, units::kInputTokens, usage.input_tokens);
    books_.Charge(prompt.caller, units::kCachedInputTokens, usage.cached_input_tokens);
    books_.Charge(prompt.caller, units::kOutputTokens, usage.output_tokens);
    return done;
  }

 private:
  const std::unique_ptr<speech::LlmEngine> engine_;
  const Books books_;
};

// ---- models that hear and speak ----

class MeteredRealtime : public speech::RealtimeEngine {
 public:
  MeteredRealtime(std::unique_ptr<speech::RealtimeEngine> engine, Meter meter)
      : engine_(std::move(engine)), books_(meter, std::string(engine_->name()), false) {}

  std::string_view name() const override { return engine_->name(); }
  int rate_hz() const override { return engine_->rate_hz(); }

  absl::StatusOr<std::unique_ptr<speech::RealtimeStream>> Open(const speech::RealtimeConfig& config,
                                                               speech::RealtimeSink sink) override {
    PARLEY_RETURN_IF_ERROR(books_.CheckCaps(config.caller));
    const Cancellation nobody;
    PARLEY_ASSIGN_OR_RETURN(Permit permit, books_.Admit(config.caller, kAnswerTokens, nobody));
    const auto charge = [books = &books_, caller = config.caller,
                         sink = std::move(sink)](speech::RealtimeEvent event) {
      if (const auto* done = std::get_if<speech::RealtimeDone>(&event)) {
        books->Charge(caller, units::kInputTokens, done->usage.input_tokens);
        books->Charge(caller, units::kCachedInputTokens, done->usage.cached_input_tokens);
        books->Charge(caller, units::kOutputTokens, done->usage.output_tokens);
      }
      sink(std::move(event));
    };
    PARLEY_ASSIGN_OR_RETURN(auto stream, engine_->Open(config, charge));
    return std::make_unique<Stream>(std::move(permit), std::move(stream));
  }

 private:
  class Stream : public speech::RealtimeStream {
   public:
    Stream(Permit permit, std::unique_ptr<speech::RealtimeStream> stream)
        : permit_(std::move(permit)), stream_(std::move(stream)) {}
    void Audio(std::span<const int16_t> samples) override { stream_->Audio(samples); }
    void Commit(uint64_t utterance) override { stream_->Commit(utterance); }
    void Clear(uint64_t from) override { stream_->Clear(from); }
    void Add(const speech::ChatItem& item) override { stream_->Add(item); }
    absl::Status Respond(uint32_t response, const std::string& instructions,
                         const std::string& tool_choice) override {
      return stream_->Respond(response, instructions, tool_choice);
    }
    void Cancel(uint32_t response) override { stream_->Cancel(response); }
    void Truncate(uint32_t response, absl::Duration heard) override {
      stream_->Truncate(response, heard);
    }
    void Check() override { stream_->Check(); }

   private:
    const Permit permit_;
    const std::unique_ptr<speech::RealtimeStream> stream_;
  };

  const std::unique_ptr<speech::RealtimeEngine> engine_;
  const Books books_;
};

}  // namespace

std::unique_ptr<speech::RealtimeEngine> Metered(std::unique_ptr<speech::RealtimeEngine> engine,
                                                Meter meter) {
  return std::make_unique<MeteredRealtime>(std::move(engine), meter);
}

std::unique_ptr<speech::SttEngine> Metered(std::unique_ptr<speech::SttEngine> engine, Meter meter) {
  return std::make_unique<MeteredStt>(std::move(engine), meter);
}

std::unique_ptr<speech::TtsEngine> Metered(std::unique_ptr<speech::TtsEngine> engine, Meter meter) {
  return std::make_unique<MeteredTts>(std::move(engine), meter);
}

std::unique_ptr<speech::LlmEngine> Metered(std::unique_ptr<speech::LlmEngine> engine, Meter meter) {
  return std::make_unique<MeteredLlm>(std::move(engine), meter);
}

}  // namespace parley::gateway
