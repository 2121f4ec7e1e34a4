#pragma once
// What a room keeps of its participants. For room.cc and participant.cc only.
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "room/early_speech.h"
#include "room/room.h"

namespace parley::room {

struct Room::Published {
  struct Listener {
    Participant* participant;  // in the room as long as it listens
    ParticipantSink* sink;     // its own
    uint32_t number;           // the track's name in the listener's frames
    bool hears = false;        // its client does, by now
  };
  Track track;
  std::vector<Listener> listeners;
  std::unique_ptr<EarlySpeech> early;  // null: nothing is kept
  bool live = true;                    // unpublished tracks keep their place, so that indices stay
};

// How a participant was heard of late.
struct Voice {
  int loud = 0;            // frames since the last look
  uint32_t loudest = 127;  // of them, -dBov
  int quiet_looks = 0;     // in a row
  float level = 0;         // smoothed, 0 to 1
  float told = 0;          // as the others know it
  bool active = false;
};

struct Participant::State {
  ParticipantInfo info;  // without tracks
  std::shared_ptr<ParticipantSink> sink;
  std::vector<std::unique_ptr<Room::Published>> tracks;  // by index
  uint32_t next_track_number = 0;                        // of what it listens to
  bool auto_subscribe = true;
  std::optional<JobClaim> job;
  bool gone = false;
  Voice voice;
  Quality quality = Quality::kUnknown;
  float quality_score = 0;

  ParticipantInfo Info() const {
    ParticipantInfo all = info;
    for (const auto& published : tracks) {
      if (published->live) all.tracks.push_back(published->track);
    }
    return all;
  }
  Room::Published* Track(std::string_view sid) {
    for (const auto& published : tracks) {
      if (published->live && published->track.sid == sid) return published.get();
    }
    return nullptr;
  }
};

// The limits of names, metadata and attributes; InvalidArgument says which was passed. `what` names
// the field.
absl::Status CheckName(std::string_view what, std::string_view name, bool may_be_empty);
absl::Status CheckMetadata(std::string_view metadata);
absl::Status CheckAttributes(const Attributes& attributes);

}  // namespace parley::room
