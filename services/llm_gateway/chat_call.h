#pragma once
// One Chat call.
#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <string>

#include "base/executor.h"
#include "base/mutex.h"
#include "gateway/gateway.h"
#include "llm_gateway/llm_gateway.h"
#include "llm_gateway/metrics.h"
#include "parley/llm/v1/llm.pb.h"
#include "speech/breakers.h"
#include "speech/cancel.h"
#include "speech/engines.h"
#include "speech/llm.h"
#include "speech/realtime.h"

namespace parley {

// What all calls share; outlives them.
struct LlmGatewayParts {
  const LlmGatewayConfig& config;
  service::Context& context;
  speech::EngineTable<speech::LlmEngine>& engines;
  speech::Breakers& breakers;
  LlmGatewayMetrics& metrics;
  speech::EngineTable<speech::RealtimeEngine>& realtime;
  gateway::Streams& streams;
  Executor& models;  // a thread for each answer under way
};

// The engine runs on a thread of `models` and waits there when the client reads slowly; gRPC's
// reactions only move the outbox on.
class ChatCall : public grpc::ServerWriteReactor<llm::v1::ChatResponse>,
                 public gateway::Streams::Member,
                 public std::enable_shared_from_this<ChatCall> {
 public:
  // Starts it; gRPC owns the returned reactor.
  static grpc::ServerWriteReactor<llm::v1::ChatResponse>* Start(
      LlmGatewayParts& parts, std::string bearer, const llm::v1::ChatRequest& request);

  ChatCall(LlmGatewayParts& parts, std::string bearer, const llm::v1::ChatRequest& request);
  void Check(absl::Time now) override;

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void Run();
  absl::Status Answer();
  absl::Status AskChain(speech::ChatPrompt prompt);
  absl::StatusOr<speech::ChatDone> AskOne(const llm::v1::ModelConfig& model,
                                          speech::ChatPrompt& prompt);
  // Blocks while the outbox is full; false when nobody wants more.
  bool Send(llm::v1::ChatResponse response);
  void End(const absl::Status& status);

  LlmGatewayParts& parts_;
  const std::string bearer_;
  const llm::v1::ChatRequest request_;
  const int64_t start_us_;
  absl::Time deadline_;
  speech::Cancellation cancel_;
  bool sunk_ = false;               // the model's thread only
  bool admitted_ = false;           // set before the call starts
  std::shared_ptr<ChatCall> self_;  // until OnDone
  Mutex mutex_;
  CondVar room_;
  std::deque<llm::v1::ChatResponse> outbox_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status final_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley
