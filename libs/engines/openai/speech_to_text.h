#pragma once
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <vector>

#include "engines/utterance/streams.h"
#include "http/client.h"
#include "speech/provider_keys.h"
#include "speech/stt.h"

namespace parley::engines {

// Where the provider is and how long it may take: set by the operator, never by a definition.
struct OpenAiSttOptions {
  std::string base_url = "https://api.openai.com/v1";
  speech::ProviderKeys keys;
  std::string default_model;                  // for streams that name none
  absl::Duration timeout = absl::Seconds(4);  // for one utterance
  int max_requests = 64;                      // under way at a time: a thread each
};

// Any server that speaks OpenAI's /audio/transcriptions: each utterance is sent whole, as WAV, once
// it is over. No partials, no grammar; phrases become the prompt, which such models take as a hint.
// The language's first part ("en" of en-US) is what the protocol takes.
class OpenAiStt : public speech::SttEngine {
 public:
  explicit OpenAiStt(OpenAiSttOptions options);
  ~OpenAiStt() override;

  const speech::SttEngineInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<speech::SttStream>> Open(const speech::SttConfig& config,
                                                          speech::SttSink sink) override;

 private:
  absl::StatusOr<std::string> Transcribe(const std::string& project, const std::string& model,
                                         const std::string& language, const std::string& prompt,
                                         const std::vector<int16_t>& heard,
                                         const speech::Cancellation& cancel);

  const OpenAiSttOptions options_;
  speech::SttEngineInfo info_;
  http::Client client_;
  UtteranceStreams streams_;
};

}  // namespace parley::engines
