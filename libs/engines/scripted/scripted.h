#pragma once
// One engine of each kind that answers from a script: see script.h.
#include <list>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "engines/scripted/script.h"
#include "event/loop.h"
#include "speech/llm.h"
#include "speech/stt.h"
#include "speech/tts.h"

namespace parley::engines {

class ScriptedStt : public speech::SttEngine {
 public:
  explicit ScriptedStt(Script::Stt script);
  ~ScriptedStt() override;
  const speech::SttEngineInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<speech::SttStream>> Open(const speech::SttConfig& config,
                                                          speech::SttSink sink) override;

 private:
  class Stream;
  const Script::Stt script_;
  speech::SttEngineInfo info_;
  event::Loop loop_;
  std::list<event::Timer> timers_;  // the loop's thread only
  bool stopped_ = false;            // likewise
  std::thread thread_;              // runs loop_
};

class ScriptedTts : public speech::TtsEngine {
 public:
  explicit ScriptedTts(Script::Tts script) : script_(script) {}
  std::string_view name() const override { return "scripted"; }
  bool embedded() const override { return true; }
  std::vector<speech::TtsVoiceInfo> Voices() const override;
  absl::StatusOr<std::unique_ptr<speech::TtsStream>> Open(const speech::TtsConfig& config) override;

 private:
  const Script::Tts script_;
};

class ScriptedLlm : public speech::LlmEngine {
 public:
  explicit ScriptedLlm(Script::Llm script) : script_(std::move(script)) {}
  std::string_view name() const override { return "scripted"; }
  bool embedded() const override { return true; }
  std::vector<speech::LlmModelInfo> Models() const override { return {{"", "from a script"}}; }
  absl::StatusOr<speech::ChatDone> Chat(const speech::ChatPrompt& prompt,
                                        const speech::ChatSink& sink,
                                        const speech::Cancellation& cancel) override;

 private:
  const Script::Llm script_;
};

}  // namespace parley::engines
