// /v1/audio/speech and /v1/audio/transcriptions: the gateways for programs that speak OpenAI's
// HTTP. Unknown fields are ignored here, as that API's clients expect.
#include "api_server/multipart.h"
#include "api_server/routes.h"
#include "api_server/v1.h"
#include "audio/wav.h"
#include "base/status.h"
#include "base/strings.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

constexpr size_t kMaxInput = 4096;  // characters of a speech request, as that API has it
constexpr int kSpeechRate = 24'000;
constexpr size_t kAudioPiece = 32 << 10;

struct SpeechRequest {
  std::string input;
  V1Model model;
  std::string voice;
  std::string format;
  double speed = 1;
};

absl::StatusOr<SpeechRequest> ReadSpeech(const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(Body body, Body::Parse(request.body));
  SpeechRequest speech;
  speech.input = body.Text("input");
  speech.model = ReadV1Model(body.Text("model", "flite"));
  speech.voice = body.Text("voice", speech.model.engine == "flite" ? "slt" : "");
  speech.format = body.Text("response_format", "wav");
  speech.speed = body.Number("speed", 1, 0.5, 2);
  PARLEY_RETURN_IF_ERROR(body.Finish(/*ignore_unknown=*/true));
  if (speech.input.empty()) return InvalidArgument("the body: input is missing");
  if (speech.input.size() > kMaxInput)
    return InvalidArgument("the body: input is longer than {} bytes", kMaxInput);
  if (speech.format != "wav" && speech.format != "pcm") {
    return InvalidArgument("the body: response_format must be wav or pcm (24 kHz, 16 bits, mono)");
  }
  return speech;
}

absl::StatusOr<std::string> SynthesizeAll(Backend& backend, const auth::Claims& claims,
                                          const SpeechRequest& speech) {
  grpc::ClientContext context;
  Prepare(context, backend.context.ServiceToken(claims.project), absl::Seconds(30));
  auto stream = backend.tts->Synthesize(&context);
  speech::v1::SynthesizeRequest message;
  auto& config = *message.mutable_config();
  config.mutable_context()->set_project(claims.project);
  config.mutable_context()->set_traceparent(CurrentTrace().Traceparent());
  auto& voice = *config.add_voices();
  voice.set_engine(speech.model.engine);
  if (!speech.model.model.empty()) (*voice.mutable_options())["model"] = speech.model.model;
  voice.set_voice(speech.voice);
  voice.set_rate(static_cast<float>(speech.speed));
  config.set_sample_rate_hz(kSpeechRate);
  config.set_ssml(true);
  stream->Write(message);
  message.set_text(speech.input);
  stream->Write(message);
  stream->WritesDone();
  std::string pcm;
  speech::v1::SynthesizeResponse answer;
  while (stream->Read(&answer)) {
    if (answer.has_audio()) pcm += answer.audio().data();
  }
  PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(stream->Finish()));
  return pcm;
}

absl::StatusOr<http::Response> Speak(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, AuthenticateV1(backend, request));
  PARLEY_ASSIGN_OR_RETURN(const SpeechRequest speech, ReadSpeech(request));
  PARLEY_ASSIGN_OR_RETURN(const std::string pcm, SynthesizeAll(backend, claims, speech));
  http::Response response;
  const bool wav = speech.format == "wav";
  response.content_type = wav ? "audio/wav" : "audio/pcm";
  response.body = wav ? audio::WavHeader(pcm.size(), kSpeechRate) + pcm : pcm;
  return response;
}

struct TranscriptionRequest {
  audio::Wav wav;
  V1Model model = {"pocketsphinx", ""};
  std::string language;
  std::string grammar;
  std::vector<std::string> phrases;
  std::string format = "json";
};

absl::StatusOr<TranscriptionRequest> ReadTranscription(const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auto parts,
                          ParseMultipart(request.Header("content-type"), request.body));
  TranscriptionRequest out;
  bool have_file = false;
  for (const FormPart& part : parts) {
    if (part.name == "file") {
      PARLEY_ASSIGN_OR_RETURN(out.wav, audio::ParseWav(part.data));
      have_file = true;
      continue;
    }
    if (!IsValidUtf8(part.data)) return InvalidArgument("a part of the form is not UTF-8");
    const std::string text(part.data);
    if (part.name == "model") {
      out.model = ReadV1Model(text);
    } else if (part.name == "language") {
      out.language = text;
    } else if (part.name == "grammar") {
      out.grammar = text;
    } else if (part.name == "prompt") {
      // A grammar, or what may be said, with commas between.
      if (Trim(text).starts_with("#JSGF")) out.grammar = text;
      for (const std::string& phrase : Split(out.grammar == text ? "" : text, ',')) {
        if (!Trim(phrase).empty()) out.phrases.emplace_back(Trim(phrase));
      }
    } else if (part.name == "response_format") {
      out.format = text;
    }
  }
  if (!have_file) return InvalidArgument("the form has no part named file");
  if (out.format != "json" && out.format != "text" && out.format != "verbose_json")
    return InvalidArgument("response_format must be json, text or verbose_json");
  return out;
}

// The samples of the first channel, as little-endian bytes.
std::string FirstChannel(const audio::Wav& wav) {
  std::string bytes;
  bytes.reserve(wav.samples.size() / static_cast<size_t>(wav.channels) * 2);
  for (size_t i = 0; i < wav.samples.size(); i += static_cast<size_t>(wav.channels)) {
    const auto sample = static_cast<uint16_t>(wav.samples[i]);
    bytes += static_cast<char>(sample & 0xff);
    bytes += static_cast<char>(sample >> 8);
  }
  return bytes;
}

struct Heard {
  std::string text;
  Json words = Json::array();  // {"word", "start", "end"}, in seconds
};

absl::StatusOr<Heard> RecognizeAll(Backend& backend, const auth::Claims& claims,
                                   const TranscriptionRequest& request) {
  grpc::ClientContext context;
  Prepare(context, backend.context.ServiceToken(claims.project), absl::Seconds(60));
  auto stream = backend.stt->Recognize(&context);
  speech::v1::RecognizeRequest message;
  auto& config = *message.mutable_config();
  config.mutable_context()->set_project(claims.project);
  config.mutable_context()->set_traceparent(CurrentTrace().Traceparent());
  auto& engine = *config.add_engines();
  engine.set_engine(request.model.engine);
  engine.set_model(request.model.model);
  engine.set_language(request.language);
  engine.set_grammar(request.grammar);
  for (const std::string& phrase : request.phrases) engine.add_phrases(phrase);
  config.set_sample_rate_hz(request.wav.rate_hz);
  stream->Write(message);
  const std::string pcm = FirstChannel(request.wav);
  for (size_t at = 0; at < pcm.size(); at += kAudioPiece) {
    message.set_audio(pcm.substr(at, kAudioPiece));
    if (!stream->Write(message)) break;
  }
  stream->WritesDone();
  Heard heard;
  speech::v1::RecognizeResponse answer;
  while (stream->Read(&answer)) {
    if (!answer.has_final() || answer.final().text().empty()) continue;
    if (!heard.text.empty()) heard.text += ' ';
    heard.text += answer.final().text();
    for (const speech::v1::WordTiming& word : answer.final().words()) {
      heard.words.push_back({{"word", word.word()},
                             {"start", word.start_ms() / 1000.0},
                             {"end", word.end_ms() / 1000.0}});
    }
  }
  PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(stream->Finish()));
  return heard;
}

absl::StatusOr<http::Response> Transcribe(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, AuthenticateV1(backend, request));
  PARLEY_ASSIGN_OR_RETURN(const TranscriptionRequest form, ReadTranscription(request));
  PARLEY_ASSIGN_OR_RETURN(const Heard heard, RecognizeAll(backend, claims, form));
  if (form.format == "json") return JsonResponse({{"text", heard.text}});
  if (form.format == "verbose_json") {
    const size_t samples = form.wav.samples.size() / static_cast<size_t>(form.wav.channels);
    return JsonResponse({{"task", "transcribe"},
                         {"language", form.language.empty() ? "en" : form.language},
                         {"duration", static_cast<double>(samples) / form.wav.rate_hz},
                         {"text", heard.text},
                         {"words", heard.words}});
  }
  http::Response response;
  response.content_type = "text/plain; charset=utf-8";
  response.body = heard.text + "\n";
  return response;
}

}  // namespace

void AddSpeechRoutes(Backend& backend, std::vector<Route>& routes) {
  routes.push_back(
      {"POST", "/v1/audio/speech",
       "Text to speech: model is ENGINE/MODEL, an engine (flite, espeak) or a model of the engine "
       "openai; voice its voice",
       kV1Grant, Json::parse(R"json({"type": "object", "required": ["input"], "properties": {
                      "model": {"type": "string", "default": "flite"}, "voice": {"type": "string"},
                      "input": {"type": "string", "maxLength": 4096}, "speed": {"type": "number", "minimum": 0.5, "maximum": 2},
                      "response_format": {"enum": ["wav", "pcm"]}}})json"),
       200, [&backend](const http::Request& request) {
         return AnswerV1(backend, [&] { return Speak(backend, request); });
       }});
  routes.push_back(
      {"POST", "/v1/audio/transcriptions",
       "Speech to text of a WAV file (multipart/form-data: file, model, language, grammar, "
       "response_format)",
       kV1Grant,
       Json::parse(
           R"json({"type": "object", "required": ["file"], "x-multipart": true, "properties": {
                      "file": {"type": "string", "format": "binary"}, "model": {"type": "string", "default": "pocketsphinx"},
                      "language": {"type": "string"}, "grammar": {"type": "string", "description": "JSGF"},
                      "prompt": {"type": "string", "description": "JSGF, or phrases with commas between"},
                      "response_format": {"enum": ["json", "text", "verbose_json"]}}})json"),
       200, [&backend](const http::Request& request) {
         return AnswerV1(backend, [&] { return Transcribe(backend, request); });
       }});
}

}  // namespace parley::api_server
