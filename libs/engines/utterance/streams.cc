#include "engines/utterance/streams.h"

#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "base/trace_context.h"

namespace parley::engines {
namespace {

constexpr size_t kMaxUtteranceSamples = size_t{UtteranceStreams::kRateHz} * 120;
constexpr size_t kMaxWaiting = 64;

}  // namespace

struct UtteranceStreams::Line {
  explicit Line(Executor& executor) : strand(executor) {}
  Transcribe transcribe;
  std::string language;
  speech::Cancellation cancel;
  Strand strand;
  Mutex mutex;
  speech::SttSink sink ABSL_GUARDED_BY(mutex);
  size_t waiting ABSL_GUARDED_BY(mutex) = 0;
  bool failed = false;  // the strand's
};

class UtteranceStreams::Stream : public speech::SttStream {
 public:
  Stream(Executor& executor, Transcribe transcribe, std::string language, speech::SttSink sink)
      : line_(std::make_shared<Line>(executor)) {
    line_->transcribe = std::move(transcribe);
    line_->language = std::move(language);
    MutexLock lock(&line_->mutex);
    line_->sink = std::move(sink);
  }
  ~Stream() override {
    line_->cancel.Cancel();
    // After this the sink is not called.
    MutexLock lock(&line_->mutex);
    line_->sink = nullptr;
  }

  absl::Status Write(std::span<const int16_t> samples) override {
    if (heard_.size() + samples.size() > kMaxUtteranceSamples)
      return ResourceExhausted("an utterance of more than {} s", kMaxUtteranceSamples / kRateHz);
    heard_.insert(heard_.end(), samples.begin(), samples.end());
    return absl::OkStatus();
  }
  absl::Status EndUtterance(uint64_t utterance) override {
    {
      MutexLock lock(&line_->mutex);
      if (line_->waiting >= kMaxWaiting)
        return ResourceExhausted("{} utterances wait for the provider", kMaxWaiting);
      ++line_->waiting;
    }
    // One after another: finals come in the order of their questions.
    line_->strand.Post(
        [line = line_, utterance, heard = std::exchange(heard_, {}), trace = CurrentTrace()] {
          const TraceScope scope(trace);
          Answer(*line, utterance, heard);
        });
    return absl::OkStatus();
  }
  absl::Status Reset() override {
    heard_.clear();
    return absl::OkStatus();
  }

 private:
  std::vector<int16_t> heard_;
  const std::shared_ptr<Line> line_;
};

UtteranceStreams::UtteranceStreams(int max_requests)
    : requests_(static_cast<size_t>(max_requests), size_t{64} * 1024) {}

std::unique_ptr<speech::SttStream> UtteranceStreams::Open(Transcribe transcribe,
                                                          std::string language,
                                                          speech::SttSink sink) {
  return std::make_unique<Stream>(requests_, std::move(transcribe), std::move(language),
                                  std::move(sink));
}

void UtteranceStreams::Answer(Line& line, uint64_t utterance, const std::vector<int16_t>& heard) {
  absl::StatusOr<std::string> text = std::string();
  if (!line.failed && !heard.empty()) text = line.transcribe(heard, line.cancel);
  MutexLock lock(&line.mutex);
  --line.waiting;
  if (!line.sink || std::exchange(line.failed, line.failed || !text.ok())) return;
  if (!text.ok()) return line.sink(speech::SttFailed{text.status()});
  speech::SttFinal final;
  final.transcript.text = *std::move(text);
  final.transcript.language = line.language;
  final.transcript.utterance = utterance;
  line.sink(std::move(final));
}

}  // namespace parley::engines
