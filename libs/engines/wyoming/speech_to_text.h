#pragma once
#include <absl/time/time.h>

#include <memory>
#include <string>

#include "engines/utterance/streams.h"
#include "speech/stt.h"

namespace parley::engines {

// Where the server is and how long it may take: set by the operator, never by a definition.
struct WyomingSttOptions {
  std::string address;  // host:port
  absl::Duration connect_timeout = absl::Seconds(1);
  absl::Duration timeout = absl::Seconds(4);  // from the utterance's end to its transcript
  int max_requests = 64;                      // under way at a time: a thread each
};

// A speech server of Home Assistant's (Whisper, Vosk, …), spoken to in Wyoming over TCP: a
// connection for each utterance, once it is over. No partials, grammar or phrases.
class WyomingStt : public speech::SttEngine {
 public:
  explicit WyomingStt(WyomingSttOptions options);

  const speech::SttEngineInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<speech::SttStream>> Open(const speech::SttConfig& config,
                                                          speech::SttSink sink) override;

 private:
  absl::StatusOr<std::string> Transcribe(const std::string& model, const std::string& language,
                                         const std::vector<int16_t>& heard,
                                         const speech::Cancellation& cancel) const;

  const WyomingSttOptions options_;
  speech::SttEngineInfo info_;
  UtteranceStreams streams_;
};

}  // namespace parley::engines
