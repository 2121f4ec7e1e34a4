#include "agent/job/scribe.h"

#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace parley::agent {

namespace jobv1 = parley::job::v1;
namespace speechv1 = parley::speech::v1;

absl::StatusOr<std::unique_ptr<Scribe>> Scribe::Create(event::Loop& loop,
                                                       std::unique_ptr<audio::Vad> vad,
                                                       speechv1::RecognizeConfig config,
                                                       const session::Options& options,
                                                       Sinks sinks) {
  std::unique_ptr<Scribe> made(new Scribe(loop, std::move(config), options, std::move(sinks)));
  Scribe* self = made.get();
  PARLEY_ASSIGN_OR_RETURN(
      made->listener_,
      Listener::Create(
          {.voice = [self](bool speech, int64_t quiet_us) { self->OnVoice(speech, quiet_us); },
           .recogniser = [self](std::string_view pcm16) { self->OnAudio(pcm16); },
           .heard = {}},
          std::move(vad)));
  return made;
}

Scribe::Scribe(event::Loop& loop, speechv1::RecognizeConfig config, const session::Options& options,
               Sinks sinks)
    : loop_(loop),
      timer_(loop),
      config_(std::move(config)),
      options_(options),
      sinks_(std::move(sinks)),
      gate_(options_) {}

Scribe::~Scribe() {
  if (stream_ == 0) return;
  jobv1::FromJob message;
  message.mutable_stt()->set_stream(stream_);
  message.mutable_stt()->mutable_close();
  sinks_.send(message);
}

void Scribe::OnVoice(bool speech, int64_t quiet_us) {
  const int64_t now_us = loop_.NowMicros();
  switch (gate_.Add(speech, now_us, quiet_us)) {
    case session::SpeechGate::Edge::kStarted:
      return Begin();
    case session::SpeechGate::Edge::kStopped:
      return End();
    case session::SpeechGate::Edge::kNone:
      break;
  }
  if (!gate_.speaking() ||
      now_us - gate_.start_us() < absl::ToInt64Microseconds(options_.max_utterance)) {
    return;
  }
  gate_.Reset();
  End();
}

void Scribe::OnAudio(std::string_view pcm16) {
  jobv1::FromJob message;
  message.mutable_stt()->set_stream(stream_);
  message.mutable_stt()->mutable_audio()->assign(pcm16);
  sinks_.send(message);
}

void Scribe::Open() {
  stream_ = sinks_.new_stream();
  jobv1::FromJob message;
  message.mutable_stt()->set_stream(stream_);
  *message.mutable_stt()->mutable_open() = config_;
  sinks_.send(message);
}

void Scribe::Begin() {
  if (stream_ == 0) Open();
  ++utterance_;
  partial_.clear();
  feeding_ = true;
  listener_->Feed(options_.preroll + absl::Microseconds(loop_.NowMicros() - gate_.start_us()));
  Watch();
}

// No frames are silence, too.
void Scribe::Watch() {
  if (gate_.Expire(loop_.NowMicros()) == session::SpeechGate::Edge::kStopped) return End();
  if (!gate_.speaking()) return;
  timer_.StartOnce(absl::Microseconds(gate_.expiry_us() - loop_.NowMicros()), [this] { Watch(); });
}

void Scribe::End() {
  timer_.Stop();
  listener_->StopFeeding();
  if (!std::exchange(feeding_, false)) return;
  jobv1::FromJob message;
  message.mutable_stt()->set_stream(stream_);
  message.mutable_stt()->mutable_end_utterance()->set_utterance(utterance_);
  sinks_.send(message);
}

bool Scribe::OnStt(const jobv1::SttEvent& event) {
  if (stream_ == 0 || event.stream() != stream_) return false;
  if (event.has_failed() || event.has_closed()) {
    // Its last words stand; the next ones open another.
    if (!partial_.empty()) sinks_.text(utterance_, std::exchange(partial_, {}), true);
    stream_ = 0;
    listener_->StopFeeding();
    feeding_ = false;
    gate_.Reset();
    timer_.Stop();
    return true;
  }
  const speechv1::RecognizeResponse& response = event.response();
  if (response.has_partial() && response.partial().text() != partial_) {
    partial_ = response.partial().text();
    sinks_.text(utterance_, partial_, false);
  } else if (response.has_final()) {
    const std::string_view words = Trim(response.final().text());
    const bool shown = response.final().utterance() == utterance_ && !partial_.empty();
    if (!words.empty() || shown) sinks_.text(response.final().utterance(), words, true);
    if (response.final().utterance() == utterance_) partial_.clear();
  }
  return true;
}

}  // namespace parley::agent
