#pragma once
// Engines as a gateway offers them: within their provider's budget and the project's caps, with
// what they use written down.
#include <prometheus/counter.h>

#include <map>
#include <memory>
#include <string>

#include "speech/llm.h"
#include "speech/realtime.h"
#include "speech/stt.h"
#include "speech/tts.h"
#include "speech_redis/budget.h"
#include "speech_redis/ledger.h"

namespace parley::gateway {

// Outlives the engines it is given to.
struct Meter {
  speech_redis::Budget* budget = nullptr;  // none: as much as the engine itself can
  // In its place, of projects with a key of their own; null: there are none.
  const std::map<std::string, speech_redis::Budget*, std::less<>>* own_budgets = nullptr;
  speech_redis::Ledger* ledger = nullptr;  // none: nothing is written down
  prometheus::Counter* capped = nullptr;   // counts what a cap stops
};

// They look like the engine inside, and may fail with BUDGET_FULL and SPEND_CAP besides
// (ResourceExhausted: the chain goes on to its next engine, no breaker opens). Embedded engines are
// written down, never limited.
//
// A recogniser has its place in the budget while its stream is open; caps are looked at when it
// opens and at the first audio after each final.
std::unique_ptr<speech::SttEngine> Metered(std::unique_ptr<speech::SttEngine> engine, Meter meter);
// A place for each sentence while it is made; caps are looked at when a voice is opened, so that
// what was begun is said to its end.
std::unique_ptr<speech::TtsEngine> Metered(std::unique_ptr<speech::TtsEngine> engine, Meter meter);
// A place for each answer; caps are looked at unless it goes on after a tool.
std::unique_ptr<speech::LlmEngine> Metered(std::unique_ptr<speech::LlmEngine> engine, Meter meter);
// A place while the conversation is open; caps are looked at when it opens, its tokens are written
// down with each response.
std::unique_ptr<speech::RealtimeEngine> Metered(std::unique_ptr<speech::RealtimeEngine> engine,
                                                Meter meter);

}  // namespace parley::gateway
