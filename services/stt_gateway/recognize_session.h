#pragma once
// One Recognize stream.
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "audio/opus.h"
#include "gateway/gateway.h"
#include "parley/speech/v1/speech.pb.h"
#include "rpc/bidi.h"
#include "speech/breakers.h"
#include "speech/engines.h"
#include "speech/stt_chain.h"
#include "stt_gateway/metrics.h"
#include "stt_gateway/stt_gateway.h"

namespace parley {

// What all sessions share; outlives them.
struct SttGatewayParts {
  const SttGatewayConfig& config;
  service::Context& context;
  speech::EngineTable<speech::SttEngine>& engines;
  speech::Breakers& breakers;
  speech::Pace& pace;
  SttGatewayMetrics& metrics;
  gateway::Streams& streams;
};

// The strand owns all state; engines' events are posted to it. Opening an engine blocks the
// strand's thread, not gRPC's.
class RecognizeSession
    : public rpc::BidiSession<speech::v1::RecognizeRequest, speech::v1::RecognizeResponse>,
      public gateway::Streams::Member {
 public:
  RecognizeSession(SttGatewayParts& parts, std::string bearer);
  ~RecognizeSession() override = default;

  void Check(absl::Time now) override;

 private:
  void OnStart() override;
  void OnMessage(const speech::v1::RecognizeRequest& request) override;
  void OnHalfClose() override;
  void OnClosed() override;

  absl::Status Handle(const speech::v1::RecognizeRequest& request);
  absl::Status Open(const speech::v1::RecognizeConfig& config);
  absl::Status PrepareAudio(const speech::v1::RecognizeConfig& config);
  absl::Status OnAudio(const std::string& bytes);
  absl::Status EndUtterance(uint64_t utterance);
  void CheckSoon();
  void OnServes(const std::string& engine, const absl::Status& failed);
  void OnEvent(speech::SttEvent event);
  void OnTranscript(speech::SttTranscript transcript, bool final);
  void Tell(speech::v1::RecognizeResponse response);
  void FinishIfDone();
  void Fail(const absl::Status& status);

  SttGatewayParts& parts_;
  const std::string bearer_;
  std::string session_id_;
  TraceContext trace_;
  std::optional<speech::SttChain> chain_;  // set once config came
  bool listening_ = false;                 // an engine was opened
  int64_t start_us_ = 0;
  bool admitted_ = false;
  bool opus_ = false;
  int input_rate_hz_ = 0;
  std::optional<audio::OpusDecoder> decoder_;
  std::vector<int16_t> decoded_;
  double audio_seconds_ = 0;
  std::deque<trace::Span> asked_spans_;  // of the finals that did not come yet
  std::deque<int64_t> asked_us_;         // when they were asked for
  int64_t first_audio_us_ = 0;  // of this utterance; 0 = none yet, or its first result came
  bool heard_since_final_ = false;
  std::string partial_;  // the last one of the utterance: engines repeat them, clients hear news
  bool half_closed_ = false;
  absl::Time last_audio_;
  absl::Time deadline_ = absl::InfiniteFuture();
};

}  // namespace parley
