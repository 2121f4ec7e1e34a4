#pragma once
// The realtime WebSocket protocol of OpenAI (and of the servers that speak it), without a socket:
// what to send, and what comes of what was received. docs/engines.md says which documents it
// follows.
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "speech/realtime.h"

namespace parley::engines {

// One session, from one thread at a time. Whatever is to be sent waits in TakeOut(), in order.
// Times are microseconds of one monotonic clock.
class RealtimeCodec {
 public:
  static constexpr int kRateHz = 24'000;    // of audio, both ways: the protocol's only PCM
  static constexpr size_t kMaxWaiting = 8;  // responses that were asked for and not begun

  // With session.update and the history to be sent.
  //   InvalidArgument  an option or a schema
  static absl::StatusOr<RealtimeCodec> Create(const speech::RealtimeConfig& config,
                                              const std::string& model);

  void Audio(std::span<const int16_t> samples);
  void Commit(uint64_t utterance);
  void Clear(uint64_t from_utterance);
  void Add(const speech::ChatItem& item);
  absl::Status Respond(uint32_t response, const std::string& instructions,
                       const std::string& tool_choice);
  void Cancel(uint32_t response, int64_t now_us);
  void Truncate(uint32_t response, int64_t heard_ms);
  // A cancelled response whose end the provider does not say within 2 s is over without it.
  void Check(int64_t now_us);

  // A message of the server's. An error ends the session: it is broken, or refused what we are.
  absl::Status OnMessage(std::string_view json);

  std::vector<std::string> TakeOut();
  std::vector<speech::RealtimeEvent> TakeEvents();

 private:
  // A response and the pieces of audio it has made.
  struct Part {
    std::string item_id;
    int64_t content_index = 0;
    int64_t samples = 0;
  };
  struct Response {
    uint32_t number = 0;
    std::string body;  // response.create, until it is sent
    std::string id;    // the server's, once it has begun
    bool cancelled = false;
    int64_t cancelled_us = 0;
    bool calls = false;  // it has asked for a tool
    std::vector<Part> parts;
  };
  struct Utterance {
    uint64_t number = 0;
    std::string text;
  };
  class Reader;

  RealtimeCodec() = default;
  void Send(std::string message) { out_.push_back(std::move(message)); }
  void Begin();
  void Delete(const std::string& item_id);
  bool IsForgotten(uint64_t utterance) const {
    return utterance >= forget_from_ && utterance <= forget_to_;
  }
  void Over(const std::string& finish_reason, const std::string& error,
            const speech::ChatUsage& usage);
  uint64_t NumberOf(const std::string& item_id, bool make);
  Response* Of(const std::string& response_id);

  std::string instructions_;
  bool server_turns_ = false;
  std::vector<std::string> out_;
  std::vector<speech::RealtimeEvent> events_;
  std::deque<Response> waiting_;                 // the first of them is under way
  bool sent_ = false;                            // … and the server was told
  std::deque<Response> past_;                    // whose audio may yet be cut
  std::deque<uint64_t> committed_;               // utterances without an item yet
  std::map<std::string, Utterance> utterances_;  // by item
  std::deque<std::string> order_;                // of utterances_
  uint64_t heard_ = 0;                           // utterances that the server's detection found
  uint64_t latest_ = 0;                          // that was committed
  uint64_t forget_from_ = 0;                     // utterances that do not count: from … to
  uint64_t forget_to_ = 0;
};

}  // namespace parley::engines
