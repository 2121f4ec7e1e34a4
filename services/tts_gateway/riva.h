#pragma once
// NVIDIA Riva's speech synthesis (protos/parley/riva/v1/tts.proto) before the gateway's own.
#include <string>
#include <vector>

#include "base/executor.h"
#include "gateway/inner_server.h"
#include "parley/riva/v1/tts.grpc.pb.h"
#include "parley/speech/v1/speech.grpc.pb.h"

namespace parley {

// Carries calls over to `own`, with the caller's token: who may call, limits, budgets, fallback and
// recordings are as there. Thread-safe.
class RivaSynthesis final : public nvidia::riva::tts::RivaSpeechSynthesis::CallbackService {
 public:
  // `engines`: the chain of requests that name no voice, or none with an engine. `executor` serves
  // streams; whole audio is waited for on threads of this service's own.
  RivaSynthesis(grpc::Service& own, std::vector<std::string> engines, Executor& executor);
  ~RivaSynthesis() override { inner_.Stop(); }  // then nobody waits

  grpc::ServerUnaryReactor* Synthesize(
      grpc::CallbackServerContext* context,
      const nvidia::riva::tts::SynthesizeSpeechRequest* request,
      nvidia::riva::tts::SynthesizeSpeechResponse* response) override;
  grpc::ServerBidiReactor<nvidia::riva::tts::SynthesizeSpeechRequest,
                          nvidia::riva::tts::SynthesizeSpeechResponse>*
  SynthesizeOnline(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetRivaSynthesisConfig(
      grpc::CallbackServerContext* context,
      const nvidia::riva::tts::RivaSynthesisConfigRequest* request,
      nvidia::riva::tts::RivaSynthesisConfigResponse* response) override;

 private:
  gateway::InnerServer inner_;
  const std::unique_ptr<speech::v1::TextToSpeechService::Stub> stub_;
  const std::vector<std::string> engines_;
  Executor& executor_;
  Executor waiting_;  // threads that wait for all of an audio
};

}  // namespace parley
