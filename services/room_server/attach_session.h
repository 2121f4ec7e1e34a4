#pragma once
#include <parley/room/v1/room.grpc.pb.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "auth/token.h"
#include "room_server/host.h"
#include "rpc/bidi.h"

namespace parley::room_server {

class AttachSession;

// One participant of an agent server, on its stream. Closed exactly once: `closed` is its last
// message.
class AttachedParticipant final : public room::ParticipantSink {
 public:
  AttachedParticipant(std::weak_ptr<AttachSession> stream, uint32_t session)
      : stream_(std::move(stream)), session_(session) {}

  // room::ParticipantSink, under the room's lock.
  void OnJoined(const room::Joined& joined) override;
  void OnEvent(const room::Event& event) override;
  void OnFrame(uint32_t track_number, const room::Frame& frame) override;
  bool TakesEarlySpeech() const override { return true; }

 private:
  const std::weak_ptr<AttachSession> stream_;
  const uint32_t session_;
  std::vector<room::Codec> codecs_;  // by track number, in calls of the room
};

// One MediaService.Attach stream: many participants, their frames batched. The first frame after a
// quiet moment goes out at once; frames that follow within one tick share a message.
class AttachSession final
    : public rpc::BidiSession<room::v1::AttachRequest, room::v1::AttachResponse>,
      public Ticked {
 public:
  AttachSession(std::shared_ptr<Host> host, auth::Claims claims);

  // Thread-safe, for AttachedParticipant.
  void SendOrClose(room::v1::AttachResponse response);
  void AddFrame(uint32_t session, uint32_t track_number, room::Codec codec,
                const room::Frame& frame);
  void OnSessionOver(uint32_t session);
  const std::string& media_url() const { return media_url_; }

  void OnTick() override;
  void OnStart() override;

 private:
  struct Seat {
    std::shared_ptr<AttachedParticipant> sink;
    std::shared_ptr<room::Participant> participant;  // null until admitted
    std::vector<room::v1::SessionCommand> early;     // commands that came before that
    std::vector<room::Codec> own;                    // codecs of its tracks, by index
  };

  // rpc::BidiSession, on the strand. Frames and commands do no more than lock their room and hand
  // on; there are several commands a second of each call.
  bool IsQuick(const room::v1::AttachRequest& message) const override {
    return message.has_frames() || message.has_command() || message.commands_size() > 0;
  }
  void OnMessage(const room::v1::AttachRequest& message) override;
  void OnClosed() override;

  void Open(const room::v1::OpenSession& open);
  absl::StatusOr<Ticket> ReadTicket(const room::v1::OpenSession& open) const;
  void OnAdmitted(uint32_t session, absl::StatusOr<std::shared_ptr<room::Participant>> participant);
  void Refuse(uint32_t session, const absl::Status& status);
  void OnCommand(const room::v1::SessionCommand& command);
  void OnFrames(const room::v1::FrameBatch& batch);
  void FlushLocked(int64_t now_us) ABSL_EXCLUSIVE_LOCKS_REQUIRED(frames_mutex_);

  const std::shared_ptr<Host> host_;
  const auth::Claims claims_;
  const std::string media_url_;
  const int64_t tick_us_;
  // On the strand.
  bool greeted_ = false;
  bool over_ = false;
  std::map<uint32_t, Seat> seats_;

  Mutex frames_mutex_;  // after a room's lock, before the stream's
  room::v1::FrameBatch frames_ ABSL_GUARDED_BY(frames_mutex_);
  int64_t flushed_us_ ABSL_GUARDED_BY(frames_mutex_) = 0;
};

}  // namespace parley::room_server
