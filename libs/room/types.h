#pragma once
// The vocabulary of rooms, free of any wire format. Transports convert at their edge.
#include <absl/time/time.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace parley::room {

// Names of rooms, participants, identities, tracks, topics.
inline constexpr size_t kMaxNameBytes = 256;
inline constexpr size_t kMaxMetadataBytes = 512 << 10;
inline constexpr size_t kMaxAttributesBytes = 64 << 10;  // keys and values of one participant
inline constexpr size_t kMaxDataBytes = 64 << 10;        // payload of a data or text packet
inline constexpr size_t kMaxFrameBytes = 4 << 10;
inline constexpr size_t kPcm16FrameBytes = 1920;  // 20 ms
inline constexpr size_t kMaxTracks = 16;          // of one participant
inline constexpr size_t kMaxRpcBytes = 15 << 10;  // payload of a call that every SDK takes
inline constexpr size_t kMaxCalls = 1000;         // of the server, that wait in one room
inline constexpr size_t kMaxParticipants = 1000;  // of one room, agents included

enum class Kind { kStandard, kAgent, kSip, kRecorder };
enum class State { kJoined, kActive, kDisconnected };
enum class TrackKind { kAudio, kVideo };
enum class TrackSource { kUnknown, kCamera, kMicrophone, kScreenShare, kScreenShareAudio };
enum class Codec {
  kOpus,   // 48 kHz, one packet of 20 ms a frame
  kPcm16,  // 48 kHz mono little-endian, 960 samples a frame
  // Video is never decoded: a frame is the payload of one RTP packet.
  kVp8,
  kVp9,
  kH264,
};
// What clients do to frames among themselves.
enum class Encryption { kNone, kGcm, kCustom };
enum class LeaveReason {
  kClientInitiated,
  kDuplicateIdentity,
  kServerShutdown,
  kParticipantRemoved,
  kRoomDeleted,
  kConnectionLost,
  kRoomClosed,  // its timeout passed
  kReplaced,    // a newer attempt of the same job was admitted
  kAgentError,
};

std::string_view Name(Kind kind);           // "standard", …
std::string_view Name(LeaveReason reason);  // "client_initiated", …

using Attributes = std::map<std::string, std::string>;

struct Permission {
  bool can_subscribe = true;
  bool can_publish = true;
  bool can_publish_data = true;
  bool can_update_metadata = false;              // own metadata, name and attributes
  bool hidden = false;                           // others do not see it; it cannot publish tracks
  std::vector<TrackSource> can_publish_sources;  // empty = all
};

// One of the sizes that a publisher of video sends at once (simulcast).
struct VideoLayer {
  int quality = 0;  // 0 = low, 1 = medium, 2 = high
  uint32_t width = 0;
  uint32_t height = 0;
  uint32_t bitrate_bps = 0;  // at most; 0 = not said
};
inline constexpr size_t kMaxLayers = 3;

// What a publisher says of a track, for its listeners; the room itself makes no use of it.
struct Picture {
  uint32_t width = 0;
  uint32_t height = 0;
  std::vector<VideoLayer> layers;  // the lowest first; empty: one size
};

struct Track {
  std::string sid;  // TR_…
  std::string name;
  TrackKind kind = TrackKind::kAudio;
  TrackSource source = TrackSource::kUnknown;
  Codec codec = Codec::kOpus;
  Encryption encryption = Encryption::kNone;
  Picture picture;  // of video
  bool muted = false;
  bool subscribed = false;  // somebody receives it
};

struct ParticipantInfo {
  std::string sid;  // PA_…
  std::string identity;
  std::string name;
  std::string metadata;
  Attributes attributes;
  Kind kind = Kind::kStandard;
  State state = State::kActive;
  std::vector<Track> tracks;
  absl::Time join_time;
  Permission permission;
  std::string job_id;  // agents
};

struct RoomInfo {
  std::string sid;  // RM_…
  std::string name;
  std::string project;
  std::string metadata;
  absl::Duration empty_timeout;
  absl::Duration departure_timeout;
  int max_participants = 0;
  absl::Time create_time;
  int num_participants = 0;  // people
  int num_agents = 0;        // agents and recorders
};

struct DataPacket {
  std::string payload;
  std::string topic;
  bool reliable = true;
  bool encrypted = false;     // by its sender, for clients that have the key: no topic, any payload
  std::string from_identity;  // set by the room
  std::vector<std::string> destination_identities;  // empty: everybody else
};

// A piece of text with a stream id, e.g. topics lk.chat and lk.transcription.
struct TextPacket {
  std::string stream_id;
  std::string topic;
  std::string text;
  bool final = false;
  Attributes attributes;
  std::string from_identity;  // the room sets it; agents may speak for the transcribed participant
  std::vector<std::string> destination_identities;  // empty: everybody else
};

// A piece of a stream of bytes, e.g. a file.
struct BytePacket {
  std::string stream_id;
  std::string topic;
  std::string name;  // of the file
  std::string mime_type;
  std::string content;
  bool final = false;
  Attributes attributes;
  uint64_t total_bytes = 0;                         // of the whole stream; 0 = not known
  std::string from_identity;                        // set by the room
  std::vector<std::string> destination_identities;  // empty: everybody else
};

// LiveKit's numbers for what may happen between the two sides of a call.
inline constexpr uint32_t kRpcRecipientNotFound = 1401;
inline constexpr uint32_t kRpcRecipientLeft = 1503;

// One step of a call from one participant to another.
struct RpcPacket {
  enum class Step { kRequest, kAck, kResponse };
  Step step = Step::kRequest;
  std::string request_id;
  std::string method;   // of a request
  std::string payload;  // of a request; of a response without an error
  absl::Duration response_timeout;
  uint32_t error_code = 0;  // of a response; 0 = it succeeded
  std::string error_message;
  std::string error_data;
  std::string from_identity;  // set by the room
  std::string destination_identity;
};

// How well a participant's connection carries speech, as its transport judges it.
enum class Quality { kUnknown, kLost, kPoor, kGood, kExcellent };

// One audio frame, or one packet of a video track, on its way. Borrows its bytes: valid during the
// call only.
struct Frame {
  uint32_t timestamp = 0;  // 48 kHz media clock (video: 90 kHz), wraps
  uint32_t level = 127;    // -dBov, 0 (loudest) to 127 (silence); 127 when unknown
  std::string_view data;
  // Of video.
  uint16_t sequence = 0;  // of its layer's packets
  uint8_t layer = 0;      // as in Picture::layers
  bool marker = false;    // the last packet of a picture
  bool key = false;       // begins a picture that needs no other
};

// What a participant sees, in the room's order.
struct ParticipantJoined {
  ParticipantInfo participant;
};
struct ParticipantLeft {
  std::string sid;
  std::string identity;
  LeaveReason reason;
};
struct ParticipantUpdated {  // of anybody, oneself included
  ParticipantInfo participant;
};
struct TrackPublished {
  std::string participant_identity;
  Track track;
  std::string cid;  // own tracks
};
struct TrackUnpublished {
  std::string participant_identity;
  std::string track_sid;
};
struct TrackMuted {
  std::string participant_identity;
  std::string track_sid;
  bool muted = false;
};
struct TrackSubscribed {  // own track: its first listener hears what is sent from now on
  std::string track_sid;
  std::string subscriber_identity;
};
struct SubscriptionStarted {  // frames of this track follow under `track_number`
  std::string participant_identity;
  Track track;
  uint32_t track_number = 0;
};
struct Speaker {
  std::string sid;
  std::string identity;
  float level = 0;  // 0 (silent) to 1
  bool active = false;
};
struct SpeakersChanged {  // those whose state or loudness changed
  std::vector<Speaker> speakers;
};
struct QualityChanged {  // of anybody, oneself included
  std::string sid;
  Quality quality = Quality::kUnknown;
  float score = 0;  // mean opinion score, 1 to 5
};
struct RoomUpdated {
  RoomInfo room;
};
struct Disconnected {  // last event
  LeaveReason reason;
  std::string message;  // for people
};
using Event = std::variant<ParticipantJoined, ParticipantLeft, ParticipantUpdated, TrackPublished,
                           TrackUnpublished, TrackMuted, TrackSubscribed, SubscriptionStarted,
                           DataPacket, TextPacket, BytePacket, RpcPacket, SpeakersChanged,
                           QualityChanged, RoomUpdated, Disconnected>;

// First thing a participant sees.
struct Joined {
  RoomInfo room;
  ParticipantInfo self;
  std::vector<ParticipantInfo> others;  // hidden ones left out
};

}  // namespace parley::room
