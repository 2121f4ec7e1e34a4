#include "engines/scripted/scripted.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"

namespace parley::engines {
namespace {

constexpr int kSttRateHz = 16000;
constexpr size_t kPartialEverySamples = kSttRateHz / 10;
constexpr int kChunkMs = 100;

speech::SttTranscript TranscriptOf(std::string text) {
  speech::SttTranscript transcript;
  transcript.text = std::move(text);
  transcript.confidence = 1;
  transcript.language = "en-US";
  return transcript;
}

// {earlier}: what the user said before the last thing.
std::string WithEarlier(std::string text, const std::vector<speech::ChatItem>& items) {
  constexpr std::string_view kEarlier = "{earlier}";
  const size_t at = text.find(kEarlier);
  if (at == std::string::npos) return text;
  std::vector<std::string_view> said;
  for (const speech::ChatItem& item : items) {
    const auto* message = std::get_if<speech::ChatMessage>(&item);
    if (message != nullptr && message->role == "user") said.push_back(message->text);
  }
  return text.replace(at, kEarlier.size(), said.size() < 2 ? "nothing" : said[said.size() - 2]);
}

// The first `count` words.
std::string FirstWords(std::string_view text, size_t count) {
  size_t end = 0;
  while (count-- > 0 && end != std::string_view::npos) end = text.find(' ', end + 1);
  return std::string(text.substr(0, end));
}

}  // namespace

class ScriptedStt::Stream : public speech::SttStream {
 public:
  Stream(ScriptedStt& engine, bool interim, speech::SttSink sink)
      : engine_(engine), interim_(interim && engine.script_.partials) {
    shared_->sink = std::move(sink);
  }
  ~Stream() override {
    // After this the sink is not called; timers that still run find nobody.
    MutexLock lock(&shared_->mutex);
    shared_->sink = nullptr;
  }

  absl::Status Write(std::span<const int16_t> samples) override {
    const size_t before = heard_ / kPartialEverySamples;
    heard_ += samples.size();
    if (!interim_ || heard_ / kPartialEverySamples == before) return absl::OkStatus();
    speech::SttPartial partial{TranscriptOf(FirstWords(Text(), heard_ / kPartialEverySamples))};
    Deliver(absl::ZeroDuration(), std::move(partial));
    return absl::OkStatus();
  }
  absl::Status EndUtterance(uint64_t utterance) override {
    // Nothing heard, nothing understood: as a real one.
    speech::SttFinal final{TranscriptOf(heard_ == 0 ? std::string() : Text())};
    final.transcript.utterance = utterance;
    if (heard_ > 0) ++spoken_;
    heard_ = 0;
    Deliver(engine_.script_.delay, std::move(final));
    return absl::OkStatus();
  }
  absl::Status Reset() override {
    heard_ = 0;
    return absl::OkStatus();
  }

 private:
  struct Shared {
    Mutex mutex;
    speech::SttSink sink ABSL_GUARDED_BY(mutex);
  };

  const std::string& Text() const {
    const auto& utterances = engine_.script_.utterances;
    return utterances[spoken_ % utterances.size()];
  }
  void Deliver(absl::Duration delay, speech::SttEvent event) {
    engine_.loop_.Post(
        [engine = &engine_, shared = shared_, delay, event = std::move(event)]() mutable {
          if (engine->stopped_) return;
          const auto timer = engine->timers_.emplace(engine->timers_.end(), engine->loop_);
          timer->StartOnce(delay, [engine, shared, timer, event = std::move(event)]() mutable {
            {
              MutexLock lock(&shared->mutex);
              if (shared->sink) shared->sink(std::move(event));
            }
            // Not from inside its own callback.
            engine->loop_.Post([engine, timer] {
              if (!engine->stopped_) engine->timers_.erase(timer);
            });
          });
        });
  }

  ScriptedStt& engine_;
  const bool interim_;
  size_t heard_ = 0;  // samples of this utterance
  size_t spoken_ = 0;
  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

ScriptedStt::ScriptedStt(Script::Stt script)
    : script_(std::move(script)), thread_([this] { loop_.Run(); }) {
  info_.name = "scripted";
  info_.description = "answers from a script, for tests and benchmarks";
  info_.languages = {"en-US"};
  info_.embedded = true;
  info_.sample_rate_hz = kSttRateHz;
}

ScriptedStt::~ScriptedStt() {
  loop_.Post([this] {
    timers_.clear();  // what was posted before may run after this
    stopped_ = true;
    loop_.Stop();
  });
  thread_.join();
}

absl::StatusOr<std::unique_ptr<speech::SttStream>> ScriptedStt::Open(
    const speech::SttConfig& config, speech::SttSink sink) {
  if (!config.options.empty())
    return InvalidArgument("scripted has no option \"{}\"", config.options.begin()->first);
  return std::make_unique<Stream>(*this, config.interim_results, std::move(sink));
}

namespace {

class ToneStream : public speech::TtsStream {
 public:
  ToneStream(const Script::Tts& script, double rate) : script_(script), rate_(rate) {}
  int sample_rate_hz() const override { return script_.sample_rate_hz; }

  absl::Status Speak(std::string_view sentence, const speech::TtsSink& sink,
                     const speech::Cancellation& cancel) override {
    if (cancel.SleepFor(script_.delay)) return Cancelled("cancelled");
    const absl::Duration length =
        script_.per_character * static_cast<int64_t>(sentence.size()) / rate_;
    const auto total = static_cast<size_t>(absl::ToDoubleSeconds(length) * script_.sample_rate_hz);
    const auto chunk = static_cast<size_t>(script_.sample_rate_hz * kChunkMs / 1000);
    std::vector<speech::WordTime> words = Words(sentence);
    for (size_t start = 0; start < total; start += chunk) {
      if (cancel.cancelled()) return Cancelled("cancelled");
      std::vector<int16_t> samples(std::min(chunk, total - start));
      for (size_t i = 0; i < samples.size(); ++i) {
        const double phase =
            2 * M_PI * script_.tone_hz * static_cast<double>(start + i) / script_.sample_rate_hz;
        samples[i] = static_cast<int16_t>(8000 * std::sin(phase));
      }
      const auto until = static_cast<int32_t>((start + samples.size()) * 1000 /
                                              static_cast<size_t>(script_.sample_rate_hz));
      const auto next = std::find_if(words.begin(), words.end(),
                                     [until](const auto& word) { return word.start_ms >= until; });
      const std::vector<speech::WordTime> begun(words.begin(), next);
      words.erase(words.begin(), next);
      if (!sink(samples, begun)) return absl::OkStatus();
    }
    return absl::OkStatus();
  }

 private:
  std::vector<speech::WordTime> Words(std::string_view sentence) const {
    std::vector<speech::WordTime> words;
    const double ms = absl::ToDoubleMilliseconds(script_.per_character) / rate_;
    size_t at = 0;
    for (const std::string& word : Split(sentence, ' ')) {
      if (!word.empty()) {
        words.push_back({word, static_cast<int32_t>(static_cast<double>(at) * ms),
                         static_cast<int32_t>(static_cast<double>(at + word.size()) * ms)});
      }
      at += word.size() + 1;
    }
    return words;
  }

  const Script::Tts script_;
  const double rate_;
};

}  // namespace

std::vector<speech::TtsVoiceInfo> ScriptedTts::Voices() const {
  return {{"tone", "en-US", script_.sample_rate_hz, "a tone as long as the text"}};
}

absl::StatusOr<std::unique_ptr<speech::TtsStream>> ScriptedTts::Open(
    const speech::TtsConfig& config) {
  PARLEY_RETURN_IF_ERROR(speech::CheckTtsConfig(config));
  if (!config.voice.empty() && config.voice != "tone")
    return speech::UnknownVoice("scripted", config.voice, "tone");
  return std::make_unique<ToneStream>(script_, config.rate);
}

absl::StatusOr<speech::ChatDone> ScriptedLlm::Chat(const speech::ChatPrompt& prompt,
                                                   const speech::ChatSink& sink,
                                                   const speech::Cancellation& cancel) {
  std::string last;
  if (!prompt.items.empty()) {
    const speech::ChatItem& item = prompt.items.back();
    if (const auto* message = std::get_if<speech::ChatMessage>(&item)) last = message->text;
    if (const auto* result = std::get_if<speech::ChatToolResult>(&item)) last = result->name;
  }
  last = ToLower(last);
  const auto answer =
      std::find_if(script_.answers.begin(), script_.answers.end(), [&last](const auto& candidate) {
        return last.find(ToLower(candidate.when)) != std::string::npos;
      });
  if (answer == script_.answers.end())
    return InvalidArgument("the script has no answer to \"{}\"", last);
  const absl::Duration left = prompt.deadline - Clock::Real().Now();
  if (cancel.SleepFor(std::min(script_.delay, left))) return Cancelled("cancelled");
  if (left < script_.delay) return DeadlineExceeded("the deadline has passed");
  speech::ChatDone done;
  done.model = "script";
  if (!answer->call.empty()) {
    done.finish_reason = "tool_calls";
    // The same run gives the same ids.
    sink(speech::ChatToolCall{fmt::format("call_{}", prompt.items.size()), answer->call,
                              answer->arguments_json});
    return done;
  }
  done.finish_reason = "stop";
  const std::string text = WithEarlier(answer->text, prompt.items);
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(' ', 1), rest.size());
    if (!sink(speech::ChatText{std::string(rest.substr(0, end))})) return Cancelled("cancelled");
    rest.remove_prefix(end);
    done.usage.output_tokens += 1;
    if (!rest.empty() && cancel.SleepFor(script_.per_token)) return Cancelled("cancelled");
  }
  return done;
}

}  // namespace parley::engines
