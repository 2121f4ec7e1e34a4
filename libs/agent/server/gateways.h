#pragma once
// The streams of jobs to the speech and model gateways. Jobs know no addresses, tokens or gRPC:
// they name a stream and say what goes in, and get back what comes out.
#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "event/loop.h"
#include "parley/common/v1/common.pb.h"
#include "parley/job/v1/job.pb.h"
#include "parley/llm/v1/llm.grpc.pb.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "rpc/bidi.h"

namespace parley::agent {

// One channel per gateway, shared by all jobs. Immutable; thread-safe.
class Gateways {
 public:
  struct Addresses {
    std::string stt;
    std::string tts;
    std::string llm;
  };
  // `token`: a service token for calls on behalf of a project; called on the loop thread.
  Gateways(const Addresses& addresses, std::function<std::string(const std::string&)> token);

  parley::speech::v1::SpeechToTextService::Stub& stt() { return *stt_; }
  parley::speech::v1::TextToSpeechService::Stub& tts() { return *tts_; }
  parley::llm::v1::LanguageModelService::Stub& llm() { return *llm_; }
  std::string Token(const std::string& project) const { return token_(project); }

 private:
  std::unique_ptr<parley::speech::v1::SpeechToTextService::Stub> stt_;
  std::unique_ptr<parley::speech::v1::TextToSpeechService::Stub> tts_;
  std::unique_ptr<parley::llm::v1::LanguageModelService::Stub> llm_;
  std::function<std::string(const std::string&)> token_;
};

// The streams of one job. Loop thread only; held by shared_ptr because answers that are under way
// find it through a weak one. Destroying it cancels everything.
class GatewayStreams : public std::enable_shared_from_this<GatewayStreams> {
 public:
  // `identity`: project, agent and session as assigned; what a job claims in their place is
  // overwritten. `emit` sends to the job.
  GatewayStreams(std::shared_ptr<event::Loop> loop, Gateways& gateways,
                 parley::common::v1::CallContext identity,
                 std::function<void(parley::job::v1::ToJob&)> emit);
  ~GatewayStreams();

  void OnStt(const parley::job::v1::SttCommand& command);
  void OnTts(const parley::job::v1::TtsCommand& command);
  void OnLlm(const parley::job::v1::LlmCommand& command);
  void OnRealtime(const parley::job::v1::RealtimeCommand& command);
  size_t open_streams() const { return stt_.size() + tts_.size() + llm_.size() + realtime_.size(); }

 private:
  using SttStream =
      rpc::ClientBidi<parley::speech::v1::RecognizeRequest, parley::speech::v1::RecognizeResponse>;
  using TtsStream = rpc::ClientBidi<parley::speech::v1::SynthesizeRequest,
                                    parley::speech::v1::SynthesizeResponse>;
  using RealtimeStream =
      rpc::ClientBidi<parley::llm::v1::RealtimeRequest, parley::llm::v1::RealtimeResponse>;
  class LlmCall;

  void OpenStt(uint32_t id, const parley::speech::v1::RecognizeConfig& config);
  void OpenTts(uint32_t id, const parley::speech::v1::SynthesizeConfig& config);
  void OpenLlm(uint32_t id, const parley::llm::v1::ChatRequest& request);
  void OpenRealtime(uint32_t id, const parley::llm::v1::RealtimeRequest& request);
  void FillContext(parley::common::v1::CallContext* context) const;
  // Says how a stream ended.
  void SttOver(uint32_t id, const absl::Status& status);
  void TtsOver(uint32_t id, const absl::Status& status);
  void LlmOver(uint32_t id, const absl::Status& status);
  void RealtimeOver(uint32_t id, const absl::Status& status);
  // From any thread, and after this is gone: runs its argument on the loop if this exists then.
  using Poster = std::function<void(std::function<void(GatewayStreams&)>)>;
  Poster MakePoster();

  const std::shared_ptr<event::Loop> loop_;
  Gateways& gateways_;
  const parley::common::v1::CallContext identity_;
  const std::function<void(parley::job::v1::ToJob&)> emit_;
  std::map<uint32_t, std::shared_ptr<SttStream>> stt_;
  std::map<uint32_t, std::shared_ptr<TtsStream>> tts_;
  std::map<uint32_t, std::shared_ptr<LlmCall>> llm_;
  std::map<uint32_t, std::shared_ptr<RealtimeStream>> realtime_;
};

}  // namespace parley::agent
