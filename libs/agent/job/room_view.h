#pragma once
// The room as this job sees it.
#include <cstdint>
#include <map>
#include <string>
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
  // Whose audio comes under this number; empty: unknown.
  const std::string& OwnerOf(uint32_t track_number) const;
  // The sid of the audio track of `identity` that is received; empty: none.
  std::string TrackOf(const std::string& identity) const;

 private:
  struct Seat {
    Participant participant;
    uint64_t order = 0;
  };
  struct Track {
    std::string identity;
    std::string sid;
  };
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
