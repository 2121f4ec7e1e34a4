#pragma once
// Writes down what somebody says who is not talked to: a recogniser of their own, and no turns.
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "agent/job/listener.h"
#include "audio/vad.h"
#include "event/loop.h"
#include "parley/job/v1/job.pb.h"
#include "parley/speech/v1/speech.pb.h"
#include "session/gate.h"

namespace parley::agent {

// Loop thread only.
class Scribe {
 public:
  struct Sinks {
    std::function<void(parley::job::v1::FromJob&)> send;
    // All of what was said in this utterance so far.
    std::function<void(uint64_t utterance, std::string_view text, bool final)> text;
    std::function<uint32_t()> new_stream;  // a number that no stream has had
  };
  static absl::StatusOr<std::unique_ptr<Scribe>> Create(event::Loop& loop,
                                                        std::unique_ptr<audio::Vad> vad,
                                                        parley::speech::v1::RecognizeConfig config,
                                                        const session::Options& options,
                                                        Sinks sinks);
  ~Scribe();  // closes its recogniser
  Scribe(const Scribe&) = delete;
  Scribe& operator=(const Scribe&) = delete;

  Listener& listener() { return *listener_; }
  // True: it was about this one's recogniser.
  bool OnStt(const parley::job::v1::SttEvent& event);

 private:
  Scribe(event::Loop& loop, parley::speech::v1::RecognizeConfig config,
         const session::Options& options, Sinks sinks);
  void OnVoice(bool speech, int64_t quiet_us);
  void OnAudio(std::string_view pcm16);
  void Open();
  void Begin();
  void End();
  void Watch();

  event::Loop& loop_;
  event::Timer timer_;  // while somebody speaks: they may mute in mid-word
  const parley::speech::v1::RecognizeConfig config_;
  const session::Options options_;
  const Sinks sinks_;
  session::SpeechGate gate_;
  std::unique_ptr<Listener> listener_;
  uint32_t stream_ = 0;  // 0: none is open
  uint64_t utterance_ = 0;
  bool feeding_ = false;
  std::string partial_;
};

}  // namespace parley::agent
