#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "speech/tts.h"

namespace parley::engines {

// Flite's voices, in this process. slt (default), rms and awb are the clearest (16 kHz, 20 ms of
// CPU for 1 s of speech), kal16 and kal (8 kHz) robotic and nearly free. English. Audio comes while
// the sentence is still being made, with the times of its words. Options: none.
class FliteEngine : public speech::TtsEngine {
 public:
  FliteEngine();  // loads the voices, a few milliseconds
  ~FliteEngine() override;

  std::string_view name() const override { return "flite"; }
  bool embedded() const override { return true; }
  std::string version() const override;
  std::vector<speech::TtsVoiceInfo> Voices() const override;
  absl::StatusOr<std::unique_ptr<speech::TtsStream>> Open(const speech::TtsConfig& config) override;
};

}  // namespace parley::engines
