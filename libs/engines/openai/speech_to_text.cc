#include "engines/openai/speech_to_text.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "audio/pcm.h"
#include "audio/wav.h"
#include "base/ids.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engines/openai/provider.h"
#include "speech/cancel.h"

namespace parley::engines {
namespace {

constexpr int kRateHz = 16000;
constexpr size_t kMaxUtteranceSamples = size_t{kRateHz} * 120;
constexpr size_t kMaxWaiting = 64;

struct Field {
  std::string name;
  std::string value;
};

std::string Multipart(const std::string& boundary, const std::vector<Field>& fields,
                      std::string_view wav) {
  std::string body;
  for (const Field& field : fields) {
    body += "--" + boundary + "\r\nContent-Disposition: form-data; name=\"" + field.name +
            "\"\r\n\r\n" + field.value + "\r\n";
  }
  body += "--" + boundary +
          "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"utterance.wav\"\r\n"
          "Content-Type: audio/wav\r\n\r\n";
  body += wav;
  body += "\r\n--" + boundary + "--\r\n";
  return body;
}

absl::StatusOr<std::string> TextOf(std::string_view body) {
  const nlohmann::json answer = nlohmann::json::parse(body, nullptr, false);
  if (!answer.is_object() || !answer.contains("text") || !answer["text"].is_string())
    return Unavailable("the provider's answer is not {{\"text\": …}}");
  return answer["text"].get<std::string>();
}

}  // namespace

struct OpenAiStt::Line {
  explicit Line(Executor& executor) : strand(executor) {}
  std::vector<Field> fields;
  std::string language;
  speech::Cancellation cancel;
  Strand strand;
  Mutex mutex;
  speech::SttSink sink ABSL_GUARDED_BY(mutex);
  size_t waiting ABSL_GUARDED_BY(mutex) = 0;
  bool failed = false;  // the strand's
};

class OpenAiStt::Stream : public speech::SttStream {
 public:
  Stream(OpenAiStt& engine, std::vector<Field> fields, std::string language, speech::SttSink sink)
      : engine_(engine), line_(std::make_shared<Line>(engine.requests_)) {
    line_->fields = std::move(fields);
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
        [engine = &engine_, line = line_, utterance, heard = std::exchange(heard_, {})] {
          engine->Answer(*line, utterance, heard);
        });
    return absl::OkStatus();
  }
  absl::Status Reset() override {
    heard_.clear();
    return absl::OkStatus();
  }

 private:
  OpenAiStt& engine_;
  std::vector<int16_t> heard_;
  const std::shared_ptr<Line> line_;
};

OpenAiStt::OpenAiStt(OpenAiSttOptions options)
    : options_(std::move(options)),
      requests_(static_cast<size_t>(options_.max_requests), size_t{64} * 1024) {
  info_.name = "openai";
  info_.description = "OpenAI-compatible server at " + options_.base_url;
  info_.streaming = false;
  info_.sample_rate_hz = kRateHz;
}

OpenAiStt::~OpenAiStt() = default;

absl::StatusOr<std::unique_ptr<speech::SttStream>> OpenAiStt::Open(const speech::SttConfig& config,
                                                                   speech::SttSink sink) {
  if (!config.options.empty())
    return InvalidArgument("the engine openai has no option \"{}\"", config.options.begin()->first);
  if (!config.grammar.empty())
    return InvalidArgument("the engine openai takes no grammar; `phrases` are its hints");
  const std::string& model = config.model.empty() ? options_.default_model : config.model;
  if (model.empty()) return InvalidArgument("the engine openai needs a model");
  std::vector<Field> fields = {{"model", model}, {"response_format", "json"}};
  if (!config.language.empty())
    fields.push_back({"language", config.language.substr(0, config.language.find('-'))});
  std::string prompt;
  for (const std::string& phrase : config.phrases) prompt += (prompt.empty() ? "" : ", ") + phrase;
  if (!prompt.empty()) fields.push_back({"prompt", std::move(prompt)});
  return std::make_unique<Stream>(*this, std::move(fields), config.language, std::move(sink));
}

void OpenAiStt::Answer(Line& line, uint64_t utterance, const std::vector<int16_t>& heard) {
  absl::StatusOr<std::string> text = std::string();
  if (!line.failed && !heard.empty()) text = Transcribe(line, heard);
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

absl::StatusOr<std::string> OpenAiStt::Transcribe(Line& line, const std::vector<int16_t>& heard) {
  http::Call call = openai::Post(options_.base_url, options_.key, "/audio/transcriptions");
  const std::string boundary = "parley-" + RandomHex(16);
  call.headers.emplace_back("content-type", "multipart/form-data; boundary=" + boundary);
  const std::string_view pcm = audio::AsBytes(heard);
  const std::string wav = audio::WavHeader(pcm.size(), kRateHz) + std::string(pcm);
  call.body = Multipart(boundary, line.fields, wav);
  call.timeout = options_.timeout;
  const auto reply = client_.Fetch(call, [&line] { return line.cancel.cancelled(); });
  if (!reply.ok()) return openai::OnTheWay(reply.status(), "--stt-openai-base-url");
  if (reply->status != 200) return openai::ErrorOf(*reply);
  return TextOf(reply->body);
}

}  // namespace parley::engines
