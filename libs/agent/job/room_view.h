#pragma once
// The room as this job sees it.
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "agent/agent.h"
#include "parley/room/v1/room.pb.h"
#include "session/types.h"

namespace parley::agent {

// Loop thread only.
class RoomView {
 public:
  void OnJoined(const parley::room::v1::Joined& joined);
  void OnEvent(const parley::room::v1::RoomEvent& event);

  bool joined() const { return joined_; }
  const std::string& own_identity() const { return own_identity_; }
  // The track the agent speaks on; empty until it is published.
  const std::string& own_track() const { return own_track_; }
  std::vector<Participant> participants() const;
  // Those an agent may talk with, in the order in which they came.
  std::vector<session::Person> people() const;
  bool IsPerson(const std::string& identity) const;
  bool Has(const std::string& identity) const { return seats_.contains(identity); }
  // Whether this number stands for the voice of `identity`: the microphone, where there is more
  // than one track.
  bool IsVoiceOf(const std::string& identity, uint32_t track_number) const;
  // Whose voice this number stands for; empty: nobody's.
  std::string SpeakerOf(uint32_t track_number) const;
  // The sid of that track; empty: none is received.
  std::string TrackOf(const std::string& identity) const;

 private:
  struct Seat {
    Participant participant;
    uint64_t order = 0;
  };
  struct Track {
    std::string identity;
    std::string sid;
    bool microphone = false;
  };
  const std::pair<const uint32_t, Track>* VoiceOf(const std::string& identity) const;
  void Add(const parley::room::v1::Participant& participant);

  bool joined_ = false;
  std::string own_identity_;
  std::string own_track_;
  std::map<std::string, Seat> seats_;  // by identity
  std::map<uint32_t, Track> tracks_;   // received ones, by number
  uint64_t order_ = 0;
};

// The cid under which the agent publishes its voice.
inline constexpr char kVoiceCid[] = "agent-voice";

}  // namespace parley::agent
