#pragma once
// Models that hear and speak: what one looks like to the gateway.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "speech/caller.h"
#include "speech/llm.h"

namespace parley::speech {

struct RealtimeConfig {
  ChatConfig model;
  std::string voice;            // empty: the model's default
  std::vector<ChatItem> items;  // system messages first: instructions; then what was said so far
  std::vector<ChatTool> tools;
  bool server_turns = false;                      // the model's own detection tells speech
  absl::Duration silence = absl::ZeroDuration();  // that ends it; 0: the model's default
  std::string language;                           // BCP 47; empty: any
  Caller caller;
};

// What Open() asked for holds from now on.
struct RealtimeReady {};
// server_turns: the user speaks, or has stopped. `utterance` counts from 1.
struct RealtimeSpeech {
  bool started = false;
  uint64_t utterance = 0;
};
// Of what the user said: all of it so far.
struct RealtimeTranscript {
  uint64_t utterance = 0;
  std::string text;
  bool final = false;
};
struct RealtimeAudio {
  uint32_t response = 0;
  std::vector<int16_t> samples;  // mono, RealtimeEngine::rate_hz()
};
struct RealtimeText {
  uint32_t response = 0;
  std::string delta;
};
struct RealtimeToolCall {
  uint32_t response = 0;
  ChatToolCall call;
};
struct RealtimeDone {
  uint32_t response = 0;
  std::string finish_reason;  // stop, tool_calls, cancelled, length, content_filter, failed
  std::string error;          // failed
  ChatUsage usage;
};
// Something that the provider did not like and that ends nothing.
struct RealtimeWarning {
  std::string text;
};
// The stream is dead; last event.
//   Unavailable        another stream may do
//   InvalidArgument    the configuration: no other would
//   ResourceExhausted  rate or quota; or the provider does not read
struct RealtimeFailed {
  absl::Status status;
};
using RealtimeEvent =
    std::variant<RealtimeReady, RealtimeSpeech, RealtimeTranscript, RealtimeAudio, RealtimeText,
                 RealtimeToolCall, RealtimeDone, RealtimeWarning, RealtimeFailed>;

// Called on a thread of the engine, one event after another; must not block and must not destroy
// the stream. Never called after the stream's destructor has returned.
using RealtimeSink = std::function<void(RealtimeEvent)>;

// One conversation. Calls come from one thread at a time and do not block; on a dead stream they do
// nothing. What they mean is said in parley/llm/v1/llm.proto.
class RealtimeStream {
 public:
  virtual ~RealtimeStream() = default;
  virtual void Audio(std::span<const int16_t> samples) = 0;  // mono, RealtimeEngine::rate_hz()
  virtual void Commit(uint64_t utterance) = 0;
  virtual void Clear(uint64_t from_utterance) = 0;
  virtual void Add(const ChatItem& item) = 0;
  // Answered by exactly one RealtimeDone; ResourceExhausted: too many wait already.
  virtual absl::Status Respond(uint32_t response, const std::string& instructions,
                               const std::string& tool_choice) = 0;
  virtual void Cancel(uint32_t response) = 0;
  virtual void Truncate(uint32_t response, absl::Duration heard) = 0;
  // About once a second: looks after what is overdue.
  virtual void Check() = 0;
};

// Thread-safe. Must outlive its streams.
class RealtimeEngine {
 public:
  virtual ~RealtimeEngine() = default;
  virtual std::string_view name() const = 0;
  virtual int rate_hz() const = 0;  // of audio, both ways

  // Does not wait for the connection: RealtimeReady says that there is one. May block for a place
  // in a budget: never on an event loop or in a gRPC reaction.
  //   InvalidArgument  the config
  virtual absl::StatusOr<std::unique_ptr<RealtimeStream>> Open(const RealtimeConfig& config,
                                                               RealtimeSink sink) = 0;
};

}  // namespace parley::speech
