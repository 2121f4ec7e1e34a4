#pragma once
// One call to an agent, seen from the caller's side: opens a session, talks, prints both sides as
// they speak, and remembers how long each answer took. What `call` and `console` share.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "api.h"
#include "caller/caller.h"

namespace parley::cli {

struct ConversationOptions {
  std::string agent;
  std::string room;      // "" = a new one
  std::string metadata;  // of the job
  std::string identity;  // "" = invented
  bool microphone = true;
  bool record = false;
  bool print = true;                                  // both sides, live
  absl::Duration agent_timeout = absl::Seconds(15);   // until the agent is in the room
  absl::Duration answer_timeout = absl::Seconds(15);  // from the end of our turn to its first sound
};

// What one turn of ours led to.
struct Turn {
  std::string said;         // text, or the name of the file that was played
  std::string heard;        // what the agent understood; empty for written turns
  std::string answer;       // what the agent said
  int64_t latency_ms = -1;  // end of our turn → first sound of the agent; -1 = no answer
};

// Not thread-safe; calls block until the turn is over.
class Conversation {
 public:
  // Opens the session, joins, waits for the agent and lets it finish its greeting.
  //   NotFound, Unauthenticated, Unavailable  as api_server says
  //   DeadlineExceeded                        the agent did not come; says what its job is doing
  static absl::StatusOr<std::unique_ptr<Conversation>> Open(Api& api, ConversationOptions options);
  ~Conversation();
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  // Plays mono samples as our microphone and waits for the answer. `name` is what was said.
  Turn Say(const std::string& name, std::vector<int16_t> samples, int rate_hz);
  // Writes a line of chat and waits for the answer.
  Turn Write(const std::string& text);

  const std::string& greeting() const { return greeting_; }
  const std::string& session_id() const { return session_id_; }
  const std::string& room() const { return room_; }
  bool agent_spoke() const { return agent_spoke_; }

  void HangUp();  // idempotent
  absl::Status SaveRecording(const std::string& path) const { return caller_->SaveRecording(path); }

 private:
  explicit Conversation(ConversationOptions options) : options_(std::move(options)) {}
  absl::Status WaitForGreeting(Api& api, const std::string& dispatch_id);
  void WaitForAnswer(Turn& turn, int64_t from_us, int64_t end_us);
  void PrintLive(const std::stop_token& stop);
  void Line(int64_t at_us, std::string_view who, std::string_view text) const;
  std::string Spoken(bool by_agent, int64_t after_us) const;

  ConversationOptions options_;
  std::string session_id_;
  std::string room_;
  std::string greeting_;
  bool agent_spoke_ = false;
  std::unique_ptr<caller::Caller> caller_;
  std::jthread printer_;
};

// Samples without the silence at their end, so that latencies count from the last sound.
std::vector<int16_t> TrimEnd(std::vector<int16_t> samples);

}  // namespace parley::cli
