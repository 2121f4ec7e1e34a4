#pragma once
// NVIDIA Riva's speech recognition (protos/parley/riva/v1/asr.proto) before the gateway's own.
#include <string>
#include <vector>

#include "base/executor.h"
#include "gateway/inner_server.h"
#include "parley/riva/v1/asr.grpc.pb.h"
#include "parley/speech/v1/speech.grpc.pb.h"

namespace parley {

// Carries calls over to `own`, with the caller's token: who may call, limits, budgets and fallback
// are as there. Thread-safe.
class RivaRecognition final : public nvidia::riva::asr::RivaSpeechRecognition::CallbackService {
 public:
  // `engines`: the chain of requests that name no model. `executor` serves streams; whole audio is
  // waited for on threads of this service's own.
  RivaRecognition(grpc::Service& own, std::vector<std::string> engines, Executor& executor);
  ~RivaRecognition() override { inner_.Stop(); }  // then nobody waits

  grpc::ServerUnaryReactor* Recognize(grpc::CallbackServerContext* context,
                                      const nvidia::riva::asr::RecognizeRequest* request,
                                      nvidia::riva::asr::RecognizeResponse* response) override;
  grpc::ServerBidiReactor<nvidia::riva::asr::StreamingRecognizeRequest,
                          nvidia::riva::asr::StreamingRecognizeResponse>*
  StreamingRecognize(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetRivaSpeechRecognitionConfig(
      grpc::CallbackServerContext* context,
      const nvidia::riva::asr::RivaSpeechRecognitionConfigRequest* request,
      nvidia::riva::asr::RivaSpeechRecognitionConfigResponse* response) override;

 private:
  gateway::InnerServer inner_;
  const std::unique_ptr<speech::v1::SpeechToTextService::Stub> stub_;
  const std::vector<std::string> engines_;
  Executor& executor_;
  Executor waiting_;  // threads that wait for all of an audio
};

}  // namespace parley
