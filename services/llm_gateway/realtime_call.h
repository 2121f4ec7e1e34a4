#pragma once
// One Realtime stream.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "audio/resample.h"
#include "llm_gateway/chat_call.h"
#include "rpc/bidi.h"
#include "speech/realtime.h"

namespace parley {

// The strand owns all state; the engine's events are posted to it. Opening an engine blocks the
// strand's thread, not gRPC's.
class RealtimeCall : public rpc::BidiSession<llm::v1::RealtimeRequest, llm::v1::RealtimeResponse>,
                     public gateway::Streams::Member {
 public:
  RealtimeCall(LlmGatewayParts& parts, std::string bearer);

  void Check(absl::Time now) override;

 private:
  void OnStart() override;
  void OnMessage(const llm::v1::RealtimeRequest& request) override;
  void OnClosed() override;

  absl::Status Handle(const llm::v1::RealtimeRequest& request);
  absl::Status Open(const llm::v1::RealtimeConfig& config);
  absl::Status OnAudio(const std::string& bytes);
  void OnEvent(speech::RealtimeEvent event);
  void OnAudio(speech::RealtimeAudio audio);
  void Tell(llm::v1::RealtimeResponse response);
  void Fail(const absl::Status& status);

  LlmGatewayParts& parts_;
  const std::string bearer_;
  std::string session_id_;
  std::string engine_;
  std::string model_;
  std::string breaker_;
  std::unique_ptr<speech::RealtimeStream> stream_;  // set once config came
  bool admitted_ = false;
  bool ready_ = false;
  absl::Time opened_;
  absl::Time deadline_ = absl::InfiniteFuture();
  std::optional<audio::Resampler> in_;
  std::optional<audio::Resampler> out_;
  std::vector<int16_t> samples_;
  std::vector<int16_t> resampled_;
};

}  // namespace parley
