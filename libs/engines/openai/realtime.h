#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "engines/openai/openai.h"
#include "http/websocket_client.h"
#include "speech/realtime.h"

namespace parley::engines {

// Any server that speaks OpenAI's realtime protocol over WebSocket.
class OpenAiRealtimeEngine : public speech::RealtimeEngine {
 public:
  // `base_url` and `keys` are used: ws(s) in place of http(s), and /realtime behind it.
  OpenAiRealtimeEngine(OpenAiOptions options, std::unique_ptr<http::WebSocketClient> client);

  std::string_view name() const override { return "openai-realtime"; }
  int rate_hz() const override;
  absl::StatusOr<std::unique_ptr<speech::RealtimeStream>> Open(const speech::RealtimeConfig& config,
                                                               speech::RealtimeSink sink) override;

 private:
  const OpenAiOptions options_;
  const std::unique_ptr<http::WebSocketClient> client_;
};

}  // namespace parley::engines
