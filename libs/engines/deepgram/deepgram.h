#pragma once
#include <absl/time/time.h>

#include <list>
#include <memory>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "event/loop.h"
#include "http/websocket_client.h"
#include "speech/provider_keys.h"
#include "speech/stt.h"

namespace parley::engines {

// Where the provider is: set by the operator, never by a definition.
struct DeepgramOptions {
  std::string base_url = "wss://api.deepgram.com/v1";
  speech::ProviderKeys keys;
  std::string default_model = "nova-3";                       // for streams that name none
  absl::Duration connect_timeout = absl::Milliseconds(1500);  // TLS and a slow network included
};

// Streaming recognition over a WebSocket as Deepgram speaks it: audio goes out as it comes,
// partials, word times and activity come back, the end of an utterance is said with Finalize.
// Phrases become key terms. No grammar. A connection for each stream; silence is bridged with
// KeepAlive, as the provider closes what is silent for ten seconds.
//
// Options: dictation, endpointing, filler_words, numerals, profanity_filter, punctuate, redact,
// smart_format, utterance_end_ms, as the provider has them.
class DeepgramStt : public speech::SttEngine {
 public:
  //   Unavailable  the WebSocket library cannot start
  static absl::StatusOr<std::unique_ptr<DeepgramStt>> Create(DeepgramOptions options);
  ~DeepgramStt() override;

  const speech::SttEngineInfo& info() const override { return info_; }
  // ResourceExhausted (reason PROVIDER_BUSY): the provider answered 429. Unavailable with reason
  // PROVIDER_KEY_REFUSED: it does not take the operator's key; PermissionDenied: a project's own.
  // Errors, the stream's too, begin with the id that the provider has given the stream.
  absl::StatusOr<std::unique_ptr<speech::SttStream>> Open(const speech::SttConfig& config,
                                                          speech::SttSink sink) override;

 private:
  class Line;  // one connection
  class Stream;
  explicit DeepgramStt(DeepgramOptions options);
  void Watch(const std::shared_ptr<Line>& line);
  void Tick();

  const DeepgramOptions options_;
  speech::SttEngineInfo info_;
  std::unique_ptr<http::WebSocketClient> client_;
  event::Loop loop_;
  event::Timer timer_{loop_};             // runs while there are lines
  std::list<std::weak_ptr<Line>> lines_;  // the loop's thread only
  std::thread thread_;                    // runs loop_
};

}  // namespace parley::engines
