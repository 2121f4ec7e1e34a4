#pragma once
// One live room: who is in it, what they may do, and where frames go.
//
// Threads: everything is thread-safe. A room has one lock; it is held while sinks are called, so
// that every participant sees events in the same order. Nothing here blocks or does I/O. Time comes
// from the clock; timeouts happen when CloseIfDue() is called.
#include <absl/status/statusor.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "room/types.h"

namespace parley::room {

class Room;

// The one interface for transports: how a participant's connection hears of its room. Calls come on
// any thread, one at a time per participant, with the room's lock held: take the event, queue it,
// return. Never call back into the room from here, never block. A transport whose queue is full
// drops frames (and counts them); when it cannot take an event it ends its connection and leaves.
class ParticipantSink {
 public:
  virtual ~ParticipantSink() = default;
  // First call.
  virtual void OnJoined(const Joined& joined) = 0;
  // After Disconnected nothing more comes.
  virtual void OnEvent(const Event& event) = 0;
  // A frame of the subscription that SubscriptionStarted announced as `track_number`.
  virtual void OnFrame(uint32_t track_number, const Frame& frame) = 0;
  // A listener of the own track `index` needs a picture of this layer that needs no other.
  virtual void OnPictureWanted(uint32_t index, uint8_t layer) {
    static_cast<void>(index);
    static_cast<void>(layer);
  }
  // May it be given what the room cannot read: video, encrypted tracks and packets?
  virtual bool TakesOpaque() const { return false; }
  // Does its client take a while until it hears a new track? Then NowHears says when, and the
  // publisher is told of its first listener no sooner.
  virtual bool SaysWhenItHears() const { return false; }
  // May it be given at once, when it joins, what was said in the last ten seconds?
  virtual bool TakesEarlySpeech() const { return false; }
};

// One attempt of a job, as its signed token says.
struct JobClaim {
  std::string job_id;
  uint64_t token = 0;  // fencing token: the room admits only the highest of a job
  std::string worker_id;
  std::string instance;
};

struct JoinRequest {
  std::string identity;
  std::string name;
  std::string metadata;
  Attributes attributes;
  Kind kind = Kind::kStandard;
  Permission permission;
  bool auto_subscribe = true;  // to all tracks of others that its sink takes
  std::optional<JobClaim> job;
};

// Names and sizes; what Room::Join checks first.
absl::Status Check(const JoinRequest& request);

struct PublishRequest {
  std::string cid;  // chosen by the client, comes back in TrackPublished
  std::string name;
  TrackKind kind = TrackKind::kAudio;
  TrackSource source = TrackSource::kMicrophone;
  Codec codec = Codec::kOpus;
  Encryption encryption = Encryption::kNone;
  Picture picture;
};

struct ParticipantChange {
  std::optional<std::string> metadata;
  std::optional<std::string> name;
  Attributes attributes;  // "" deletes
  std::optional<Permission> permission;
};

enum class FrameResult { kForwarded, kUnheard, kMuted, kNoTrack, kInvalid };

// A participant's seat: what its connection may do in the room. Thread-safe. After the participant
// has left (Disconnected was sent) every command answers FailedPrecondition and frames go nowhere.
// Errors otherwise: PermissionDenied names the missing permission, InvalidArgument the limit,
// NotFound the track, Unimplemented video of a sink that takes none.
class Participant {
 public:
  ~Participant();
  Participant(const Participant&) = delete;
  Participant& operator=(const Participant&) = delete;

  absl::StatusOr<Track> Publish(const PublishRequest& request);
  absl::Status Unpublish(std::string_view track_sid);
  absl::Status SetMuted(std::string_view track_sid, bool muted);
  absl::Status SetSubscribed(std::string_view track_sid, bool subscribed);
  // Of a sink that says when it hears: what is sent of this track reaches its client from now on.
  // Idempotent; nothing happens when it does not listen to it.
  void NowHears(uint32_t track_number);
  absl::Status Update(const ParticipantChange& change);  // own; `permission` is ignored
  absl::Status SendData(DataPacket packet);
  absl::Status SendText(TextPacket packet);
  absl::Status SendBytes(BytePacket packet);
  // A request to somebody who is not here is answered with LiveKit's code 1401.
  absl::Status SendRpc(RpcPacket packet);
  // What its transport measured; others hear of a change.
  void SetQuality(Quality quality, float score);
  // Gives the seat up; idempotent. The participant itself hears Disconnected.
  void Leave(LeaveReason reason, std::string_view message = {});

  // The hot path: no allocation, but while an agent is expected. `index` counts this participant's
  // published tracks from 0; unpublishing does not renumber.
  FrameResult SendFrame(uint32_t index, const Frame& frame);
  // Asks the publisher of a track that this one listens to for a picture that needs no other.
  // Nothing happens when it does not listen to it.
  void WantPicture(uint32_t track_number, uint8_t layer);
  // Index of a published track; nullopt when there is none. For transports that name tracks by sid.
  std::optional<uint32_t> TrackIndex(std::string_view track_sid) const;

  const std::string& sid() const { return sid_; }
  const std::string& identity() const { return identity_; }
  Kind kind() const { return kind_; }
  const std::shared_ptr<Room>& room() const { return room_; }

 private:
  friend class Room;
  struct State;
  Participant(std::shared_ptr<Room> room, const JoinRequest& request, std::string sid);
  absl::Status CheckMaySendLocked() const;  // data, text, bytes, calls
  std::string ShownIdentityLocked() const;  // to receivers; "": hidden

  const std::shared_ptr<Room> room_;
  const std::string sid_;
  const std::string identity_;
  const Kind kind_;
  const std::unique_ptr<State> state_;  // guarded by the room's lock
};

// A line for the append-only admission log: who was let in, refused, removed, and under which
// token.
struct AdmissionRecord {
  enum class Outcome { kAdmit, kRefuse, kRemove };
  Outcome outcome = Outcome::kAdmit;
  std::string_view project;
  std::string_view room;
  std::string_view room_sid;
  std::string_view identity;
  JobClaim job;                // of the one admitted, refused or removed
  uint64_t highest_token = 0;  // what the room knew when it decided
};
// Called with the room's lock held, for participants with a job only. Must be quick.
using AdmissionObserver = std::function<void(const AdmissionRecord&)>;

struct RoomOptions {
  std::string project;
  std::string name;
  std::string metadata;
  absl::Duration empty_timeout = absl::Seconds(300);     // nobody joined yet
  absl::Duration departure_timeout = absl::Seconds(20);  // the last person left
  int max_participants = 0;                              // people; 0 = no limit
  // Of a room that goes on here after its server died. "": a new one, with a new sid.
  std::string sid;
  bool had_people = false;
};

// The highest token seen of a job, and who holds it. Token only (empty worker): a fence.
struct JobFence {
  uint64_t lowest = 0;  // lower ones are refused
  std::string worker_id;
  std::string instance;
};
using JobFences = std::map<std::string, JobFence, std::less<>>;

class Room : public std::enable_shared_from_this<Room> {
 public:
  // `fences` are those of an earlier room of this name. InvalidArgument: names, sizes, ranges.
  static absl::StatusOr<std::shared_ptr<Room>> Create(RoomOptions options, Clock& clock,
                                                      AdmissionObserver observer = {},
                                                      JobFences fences = {});
  ~Room();

  // Admits a participant. An older one of the same identity leaves first (DUPLICATE_IDENTITY), as
  // does an older attempt of the same job (REPLACED). The agent of a job puts out nobody else:
  // where its identity is taken, its own becomes "<identity>-<job id>". `sink` is kept until the
  // participant has left.
  //   InvalidArgument     names, sizes
  //   ResourceExhausted   reason ROOM_FULL
  //   FailedPrecondition  reason STALE_TOKEN, metadata highest_token: a newer attempt was admitted
  //                       or this one fenced; or the same token came from another worker
  //   Aborted             reason ROOM_CLOSED: this room is over; open a new one
  absl::StatusOr<std::shared_ptr<Participant>> Join(const JoinRequest& wanted,
                                                    std::shared_ptr<ParticipantSink> sink);

  // `more` agents were asked for and will join (negative: so many will not after all). Until they
  // are there, what people say is kept (EarlySpeech) and given to each of them first of all, where
  // its sink takes it, so that nobody's first words are lost. So is, for a minute, what is said
  // while a job's agent is away that crashed or whose connection was lost.
  void ExpectAgents(int more);

  // No token of this job below `lowest_token` is admitted from now on; a participant under an older
  // one is removed.
  void Fence(std::string_view job_id, uint64_t lowest_token);

  RoomInfo info() const;
  std::vector<ParticipantInfo> participants() const;  // in order of joining, hidden included
  //   NotFound  nobody has this identity; of one of the last 64 who left it says how (reason
  //             PARTICIPANT_LEFT, metadata left: the LeaveReason's name)
  absl::StatusOr<ParticipantInfo> Find(std::string_view identity) const;

  absl::Status UpdateMetadata(std::string metadata);
  absl::StatusOr<ParticipantInfo> UpdateParticipant(std::string_view identity,
                                                    const ParticipantChange& change);
  // NotFound when nobody has this identity.
  absl::Status Remove(std::string_view identity, LeaveReason reason, std::string_view message = {});
  // Nobody but its publisher may unmute a track: FailedPrecondition.
  absl::StatusOr<Track> MuteTrack(std::string_view identity, std::string_view track_sid,
                                  bool muted);
  // From the server: no sender.
  absl::Status SendData(DataPacket packet);
  // Lets somebody receive these tracks or no longer, as it might ask itself. Tracks that are not
  // here are passed over. NotFound when nobody has this identity.
  absl::Status SetSubscribed(std::string_view identity, const std::vector<std::string>& track_sids,
                             bool subscribed);
  // From the server: a request to `destination_identity`, whose caller bears the request's id as
  // its identity. `answered` hears the acknowledgement and the response (1401 at once when nobody
  // has the identity, 1503 when it leaves first), with the room's lock held: take it and return. It
  // is kept until EndCall.
  //   InvalidArgument     no request id, a payload above 15,360 bytes or no UTF-8
  //   ResourceExhausted   kMaxCalls of the room wait
  absl::Status Call(RpcPacket request, std::function<void(const RpcPacket&)> answered);
  void EndCall(std::string_view request_id);

  // Everybody leaves with `reason`; nobody joins any more. Idempotent.
  void Close(LeaveReason reason, std::string_view message = {});
  // Closes (ROOM_CLOSED) when the empty or departure timeout passed. True when the room is closed.
  // Also notices who fell silent without a frame that says so. Call it about once a second.
  bool CloseIfDue();
  bool closed() const;
  JobFences fences() const;

  const std::string& sid() const { return sid_; }
  const std::string& name() const { return name_; }
  const std::string& project() const { return project_; }

 private:
  friend class Participant;
  struct Published;
  struct Waiting {
    std::string identity;  // of who is called
    std::function<void(const RpcPacket&)> answered;
  };
  Room(RoomOptions options, Clock& clock, AdmissionObserver observer, JobFences fences);

  absl::Status AdmitLocked(const JoinRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool TakenByAnotherLocked(const JoinRequest& request) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckCapacityLocked(const JoinRequest& request) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // By value: callers name our own list's element, which goes meanwhile.
  void RemoveLocked(std::shared_ptr<Participant> participant, LeaveReason reason,
                    std::string_view message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnpublishLocked(Participant& publisher, Published& track)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SubscribeLocked(Participant& publisher, Published& track, Participant& subscriber)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // From now on this listener's client hears what is sent.
  void HearsLocked(Participant& publisher, Published& track, const Participant& subscriber)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SetSubscribedLocked(Participant& subscriber, std::string_view track_sid,
                                   bool subscribed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnsubscribeLocked(Published& track, const Participant& subscriber)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ApplyPermissionLocked(Participant& participant, const Permission& permission)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ChangeLocked(Participant& participant, const ParticipantChange& change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetMutedLocked(Participant& publisher, Published& track, bool muted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellStateLocked(Participant::State& newcomer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whoever joins is one of those that were expected, unless its job is in the room already.
  void GiveEarlySpeechLocked(Participant& joining, bool expected)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool KeepsEarlySpeechLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void KeepEarlySpeechLocked(const Participant& speaker, Published& track, const Frame& frame)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetEarlySpeechLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Counts a frame of this level; looks who speaks when that is due.
  void HearLocked(Participant& speaker, uint32_t level) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LookWhoSpeaksLocked(int64_t now_us) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Its microphone is muted or gone: it does not speak.
  void HushLocked(Participant& speaker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BroadcastLocked(const Event& event, const Participant* except = nullptr)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // To `destinations`, or to all but `from`. Identities that are not here are passed over.
  void DeliverLocked(const Event& event, const std::vector<std::string>& destinations,
                     const Participant* from) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Participant> FindLocked(std::string_view identity) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // To its destination, if that is here: a participant, or a call of the server.
  void DeliverRpcLocked(const RpcPacket& packet) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Who is called cannot answer any more.
  void FailCallsLocked(std::string_view identity) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  RoomInfo InfoLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int PeopleLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ObserveLocked(AdmissionRecord::Outcome outcome, std::string_view identity,
                     const JobClaim& job, uint64_t highest) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string sid_;
  const std::string name_;
  const std::string project_;
  const absl::Duration empty_timeout_;
  const absl::Duration departure_timeout_;
  const int max_participants_;
  const absl::Time create_time_;
  Clock& clock_;
  const AdmissionObserver observer_;

  mutable Mutex mutex_;
  std::string metadata_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Participant>> participants_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::pair<std::string, LeaveReason>> left_ ABSL_GUARDED_BY(mutex_);  // newest last
  JobFences fences_ ABSL_GUARDED_BY(mutex_);
  bool a_person_came_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t no_people_since_us_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t look_at_speakers_us_ ABSL_GUARDED_BY(mutex_) = 0;
  int expected_agents_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t agent_lost_until_us_ ABSL_GUARDED_BY(mutex_) = 0;                    // 0: none was
  std::map<std::string, Waiting, std::less<>> calls_ ABSL_GUARDED_BY(mutex_);  // by request id
};

// Is this a person, i.e. does it keep a room open and count for max_participants?
inline bool IsPerson(Kind kind) { return kind == Kind::kStandard || kind == Kind::kSip; }

}  // namespace parley::room
