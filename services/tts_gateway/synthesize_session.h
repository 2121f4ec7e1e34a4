#pragma once
// One Synthesize stream.
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/executor.h"
#include "gateway/gateway.h"
#include "gateway/shared.h"
#include "parley/speech/v1/speech.pb.h"
#include "rpc/bidi.h"
#include "speech/breakers.h"
#include "speech/cancel.h"
#include "speech/engines.h"
#include "speech/sentences.h"
#include "speech/tts_chain.h"
#include "tts_gateway/metrics.h"
#include "tts_gateway/packer.h"
#include "tts_gateway/speech_cache.h"
#include "tts_gateway/tts_gateway.h"

namespace parley {

// What all sessions share; outlives them.
struct TtsGatewayParts {
  const TtsGatewayConfig& config;
  service::Context& context;
  speech::EngineTable<speech::TtsEngine>& engines;
  speech::Breakers& breakers;
  speech::Pace& pace;
  TtsGatewayMetrics& metrics;
  gateway::Streams& streams;
  Executor& voices;         // where engines speak: a thread for each sentence under way
  Executor& remote_voices;  // the same for engines that wait rather than compute
  gateway::Shared& shared;
  SpeechCache* cache;        // null: none
  speech::TtsEngine& ruler;  // says where words are; of English
};

// The strand owns all state but what a sentence under way needs: the voices and the packer belong
// to the voice thread from the post that starts it to the post that ends it. One sentence at a
// time.
class SynthesizeSession
    : public rpc::BidiSession<speech::v1::SynthesizeRequest, speech::v1::SynthesizeResponse>,
      public gateway::Streams::Member {
 public:
  SynthesizeSession(TtsGatewayParts& parts, std::string bearer);
  ~SynthesizeSession() override = default;

  void Check(absl::Time now) override;

 private:
  struct Sentence {
    std::string text;      // may be empty: a pause alone
    absl::Duration pause;  // before it
    speech::Prosody prosody;
  };
  struct Segment {
    uint64_t number = 0;
    int64_t characters = 0;
    int64_t since_us = 0;  // when it was flushed
    std::deque<Sentence> sentences;
    bool started = false;
    bool cancelled = false;
  };

  void OnStart() override;
  void OnMessage(const speech::v1::SynthesizeRequest& request) override;
  void OnHalfClose() override;
  void OnSent(size_t left) override;
  void OnClosed() override;

  absl::Status Handle(const speech::v1::SynthesizeRequest& request);
  absl::Status Open(const speech::v1::SynthesizeConfig& config);
  void OnServes(const std::string& engine, const absl::Status& failed);
  absl::Status OnText(const std::string& text);
  absl::Status OnFlush(uint64_t number);
  void OnCancelled();
  void Step();
  void SpeakNext();
  // Cuts what was flushed.
  absl::StatusOr<std::deque<Sentence>> Sentences() const;
  void Speak(const Sentence& sentence, bool last, uint64_t number, int64_t first_since_us,
             const std::shared_ptr<speech::Cancellation>& cancel);
  // As the chain's Speak, from the cache or into it where that is wanted. `play` takes a whole
  // recording.
  absl::Status Say(const Sentence& sentence, const speech::TtsSink& sink,
                   const std::function<bool(const speech::Phrase&)>& play,
                   const speech::Cancellation& cancel);
  void OnSpoken(const absl::Status& status, const std::string& engine, bool last, int segment_ms,
                bool cancelled);
  void TellDone(const Segment& segment, int duration_ms, bool cancelled);
  void FinishIfDone();
  void Fail(const absl::Status& status);
  void Leave();

  TtsGatewayParts& parts_;
  const std::string bearer_;
  bool admitted_ = false;
  bool over_ = false;  // failed or closed: nothing more is spoken
  bool closed_ = false;
  bool half_closed_ = false;
  bool speaking_ = false;  // a voice thread has voice_ and packer_
  std::string engine_;     // empty: no voice was opened
  std::string language_;
  bool ssml_ = false;  // text may be marked up
  std::string session_id_;
  TraceContext trace_;
  speech::TtsConfig preferred_;  // the first voice
  std::string version_;          // of its engine
  bool remote_ = false;          // it is not in this machine
  bool cached_ = false;          // what it says may be kept
  int rescues_ = 0;              // voices that failed; of who speaks
  std::optional<speech::TtsChain> chain_;
  std::optional<AudioPacker> packer_;
  std::shared_ptr<speech::Cancellation> cancel_ = std::make_shared<speech::Cancellation>();
  std::string text_;  // not yet flushed
  std::deque<Segment> segments_;
  uint64_t last_segment_ = 0;
  absl::Time last_message_;
  absl::Time deadline_ = absl::InfiniteFuture();
};

}  // namespace parley
