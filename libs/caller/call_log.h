#pragma once
#include <parley/room/v1/room.pb.h>

#include <map>
#include <string>
#include <vector>

#include "caller/caller.h"

namespace parley::caller {

// What happened in a call, made out of what the room tells. Not thread-safe; no I/O, no clock.
class CallLog {
 public:
  static constexpr size_t kMaxEvents = 200'000;  // more are dropped

  void OnJoined(const room::v1::Joined& joined);
  void OnEvent(const room::v1::RoomEvent& event, int64_t at_us);
  void OnDisconnected(std::string_view why, int64_t at_us);  // once; later calls change nothing
  // A decoded frame of an agent, audible or not, and the time it belongs to.
  void OnAgentFrame(const std::string& identity, bool audible, int64_t at_us);
  // Time passes: the agent's speech ends when `gap_us` went by without an audible frame.
  void OnTime(int64_t now_us, int64_t gap_us);

  const std::vector<CallEvent>& events() const { return events_; }
  const std::vector<Transcript>& transcripts() const { return transcripts_; }
  bool IsAgent(const std::string& identity) const;
  // The attribute's value now, of any agent; "" when unset.
  std::string AgentAttribute(const std::string& key) const;
  // Identity of an agent whose audio we receive; "" when there is none.
  std::string AudibleAgent() const;
  bool microphone_heard() const { return microphone_heard_; }
  bool over() const { return over_; }

  struct Spoken {
    int64_t from_us;
    int64_t to_us;  // end of the last audible frame
  };
  // Stretches of audible frames of agents, oldest first.
  const std::vector<Spoken>& spoken() const { return spoken_; }

 private:
  struct Person {
    bool agent = false;
    bool audible = false;
    std::map<std::string, std::string> attributes;
  };
  void Add(CallEvent event);
  void Update(const room::v1::Participant& participant, int64_t at_us);
  void OnText(const room::v1::TextPacket& text, int64_t at_us);
  void OnTranscript(const room::v1::TextPacket& text, int64_t at_us);

  std::string self_;
  std::map<std::string, Person> people_;
  std::vector<CallEvent> events_;
  std::vector<Transcript> transcripts_;
  std::map<std::string, std::string> streams_;  // segment → stream id its text came from
  std::vector<Spoken> spoken_;
  std::string speaker_;  // the agent of the open stretch
  bool speaking_ = false;
  bool microphone_heard_ = false;
  bool over_ = false;
};

}  // namespace parley::caller
