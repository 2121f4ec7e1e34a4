#include "engines/openai/speech_to_text.h"

#include <utility>

#include "audio/pcm.h"
#include "audio/wav.h"
#include "base/ids.h"
#include "base/status.h"
#include "engines/openai/provider.h"

namespace parley::engines {
namespace {

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

}  // namespace

OpenAiStt::OpenAiStt(OpenAiSttOptions options)
    : options_(std::move(options)), streams_(options_.max_requests) {
  info_.name = "openai";
  info_.description = "OpenAI-compatible server at " + options_.base_url;
  info_.streaming = false;
  info_.sample_rate_hz = UtteranceStreams::kRateHz;
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
  std::string prompt;
  for (const std::string& phrase : config.phrases) prompt += (prompt.empty() ? "" : ", ") + phrase;
  return streams_.Open(
      [this, project = config.caller.project, model, language = config.language,
       prompt = std::move(prompt)](const std::vector<int16_t>& heard,
                                   const speech::Cancellation& cancel) {
        return Transcribe(project, model, language, prompt, heard, cancel);
      },
      config.language, std::move(sink));
}

absl::StatusOr<std::string> OpenAiStt::Transcribe(const std::string& project,
                                                  const std::string& model,
                                                  const std::string& language,
                                                  const std::string& prompt,
                                                  const std::vector<int16_t>& heard,
                                                  const speech::Cancellation& cancel) {
  std::vector<Field> fields = {{"model", model}, {"response_format", "json"}};
  if (!language.empty()) fields.push_back({"language", language.substr(0, language.find('-'))});
  if (!prompt.empty()) fields.push_back({"prompt", prompt});
  openai::Request request(options_.base_url, options_.keys, project, "/audio/transcriptions");
  http::Call& call = request.call;
  const std::string boundary = "parley-" + RandomHex(16);
  call.headers.emplace_back("content-type", "multipart/form-data; boundary=" + boundary);
  const std::string_view pcm = audio::AsBytes(heard);
  const std::string wav =
      audio::WavHeader(pcm.size(), UtteranceStreams::kRateHz) + std::string(pcm);
  call.body = Multipart(boundary, fields, wav);
  call.timeout = options_.timeout;
  const auto reply = client_.Fetch(call, [&cancel] { return cancel.cancelled(); });
  if (!reply.ok()) return request.Lost(reply.status(), "--stt-openai-base-url");
  if (reply->status != 200) return request.Refused(*reply);
  auto transcript = openai::TranscriptOf(reply->body);
  if (!transcript.ok()) return request.Failed(transcript.status());
  return transcript;
}

}  // namespace parley::engines
