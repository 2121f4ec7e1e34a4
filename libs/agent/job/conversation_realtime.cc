// A session with a model that hears and speaks: its stream stands for recogniser, model and voice.
#include "agent/job/conversation.h"
#include "agent/job/convert.h"
#include "audio/pcm.h"

namespace parley::agent {
namespace {

namespace command = session::command;
namespace event_ = session::event;
namespace jobv1 = parley::job::v1;
namespace llmv1 = parley::llm::v1;
namespace speechv1 = parley::speech::v1;

constexpr size_t kMostAside = size_t{30} * Playout::kRateHz;

}  // namespace

bool Conversation::ServerTurns() const {
  return config_.realtime && config_.options.turn_detection == session::TurnDetection::kRealtime;
}

// ---- out ----

void Conversation::SendRealtime(uint32_t stream, llmv1::RealtimeRequest request) {
  jobv1::FromJob message;
  message.mutable_realtime()->set_stream(stream);
  *message.mutable_realtime()->mutable_request() = std::move(request);
  host_.send(message);
}

void Conversation::OpenRealtime(const command::SttOpen& open) {
  llmv1::RealtimeRequest request;
  llmv1::RealtimeConfig& config = *request.mutable_config();
  config = RealtimeConfigOf(config_, Playout::kRateHz);
  *config.mutable_context() = ContextOf("");
  *config.mutable_tools() = VoiceOf(open.agent).chat.tools();
  llmv1::ChatRequest items;
  AddItems(open.items, items);
  config.mutable_items()->Swap(items.mutable_items());
  SendRealtime(open.stream, std::move(request));
}

void Conversation::Do(const command::Respond& respond) {
  response_ = respond.stream;
  if (respond.first) playout_->Begin();
  llmv1::ChatRequest items;
  AddItems(respond.items, items);
  for (llmv1::ChatItem& item : *items.mutable_items()) {
    llmv1::RealtimeRequest request;
    request.mutable_item()->Swap(&item);
    SendRealtime(stt_stream_, std::move(request));
  }
  llmv1::RealtimeRequest request;
  request.mutable_respond()->set_response(respond.stream);
  request.mutable_respond()->set_instructions(respond.instructions);
  if (!respond.allow_tools) request.mutable_respond()->set_tool_choice("none");
  SendRealtime(stt_stream_, std::move(request));
}

void Conversation::Do(const command::SttForget& forget) {
  listener_->StopFeeding();
  llmv1::RealtimeRequest request;
  request.mutable_clear()->set_from_utterance(forget.from);
  SendRealtime(forget.stream, std::move(request));
}

void Conversation::Do(const command::Truncate& truncate) {
  llmv1::RealtimeRequest request;
  request.mutable_truncate()->set_response(truncate.stream);
  request.mutable_truncate()->set_audio_ms(truncate.heard_us / 1000);
  SendRealtime(stt_stream_, std::move(request));
}

// ---- in ----

void Conversation::OnRealtime(const jobv1::RealtimeEvent& event, int64_t now_us) {
  const uint32_t stream = event.stream();
  if (stream != stt_stream_) return;  // of one that was closed
  if (event.has_response()) return OnRealtime(event.response(), now_us);
  const jobv1::StreamFailed& failed = event.failed();
  std::string error = "the stream ended";
  if (event.has_failed()) {
    error = failed.reason().empty() ? failed.message() : failed.reason() + ": " + failed.message();
  }
  Handle(event_::SttFailed{stream, std::move(error)}, now_us);
}

void Conversation::OnRealtime(const llmv1::RealtimeResponse& response, int64_t now_us) {
  switch (response.message_case()) {
    case llmv1::RealtimeResponse::kSpeech: {
      const llmv1::RealtimeSpeech& speech = response.speech();
      return Handle(event_::ModelSpeech{stt_stream_, speech.started(), speech.utterance()}, now_us);
    }
    case llmv1::RealtimeResponse::kTranscript: {
      const llmv1::RealtimeTranscript& transcript = response.transcript();
      return Handle(event_::ModelTranscript{stt_stream_, transcript.utterance(), transcript.text(),
                                            transcript.final()},
                    now_us);
    }
    case llmv1::RealtimeResponse::kAudio:
      return OnRealtimeAudio(response.audio(), now_us);
    case llmv1::RealtimeResponse::kText:
      return Handle(event_::LlmText{response.text().response(), response.text().delta()}, now_us);
    case llmv1::RealtimeResponse::kToolCall: {
      const llmv1::ToolCall& call = response.tool_call().call();
      return Handle(event_::LlmToolCall{response.tool_call().response(), call.call_id(),
                                        call.name(), call.arguments_json()},
                    now_us);
    }
    case llmv1::RealtimeResponse::kDone: {
      const llmv1::RealtimeDone& done = response.done();
      if (done.finish_reason() == "failed") {
        return Handle(event_::LlmFailed{done.response(), done.error()}, now_us);
      }
      return Handle(event_::LlmDone{done.response(), done.usage().input_tokens(),
                                    done.usage().output_tokens()},
                    now_us);
    }
    default:
      return;
  }
}

void Conversation::OnRealtimeAudio(const llmv1::RealtimeAudio& audio, int64_t now_us) {
  if (audio.response() != response_) return;  // what was cancelled still trickles in
  samples_.clear();
  audio::AppendSamples(audio.data(), samples_);
  playout_->Append(samples_);
  const auto count = static_cast<int64_t>(samples_.size());
  Handle(event_::LlmAudio{response_, audio::SamplesToMicros(count, Playout::kRateHz)}, now_us);
}

// The model may begin at any time, and is not to be mixed with it: so it is played as one piece.
void Conversation::OnAside(uint32_t stream, const speechv1::SynthesizeResponse& response,
                           int64_t now_us) {
  if (response.has_audio()) {
    const speechv1::SynthesizedAudio& audio = response.audio();
    audio::AppendSamples(audio.data(), aside_samples_);
    AddWords(audio.words(), aside_.words);
    if (aside_samples_.size() <= kMostAside) return;
    return Handle(event_::TtsFailed{stream, "it is longer than anybody can bear"}, now_us);
  }
  if (!response.has_done() || response.done().cancelled()) return;
  if (aside_samples_.empty()) return Handle(event_::TtsFailed{stream, "no audio"}, now_us);
  const auto count = static_cast<int64_t>(aside_samples_.size());
  aside_.stream = stream;
  aside_.segment = response.done().segment();
  aside_.duration_us = audio::SamplesToMicros(count, Playout::kRateHz);
  playout_->Append(aside_samples_);
  Handle(aside_, now_us);
  Handle(event_::TtsSegmentDone{stream, aside_.segment}, now_us);
}

}  // namespace parley::agent
