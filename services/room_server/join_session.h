#pragma once
#include <parley/room/v1/room.grpc.pb.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "room_server/host.h"
#include "room_server/transcoder.h"
#include "rpc/bidi.h"

namespace parley::room_server {

// One participant on one MediaService.Join stream: an adapter between gRPC and libs/room.
class JoinSession final : public rpc::BidiSession<room::v1::JoinRequest, room::v1::JoinResponse>,
                          public room::ParticipantSink {
 public:
  // `trace`: what the call belongs to.
  JoinSession(std::shared_ptr<Host> host, const TraceContext& trace);

  // room::ParticipantSink, under the room's lock.
  void OnJoined(const room::Joined& joined) override;
  void OnEvent(const room::Event& event) override;
  void OnFrame(uint32_t track_number, const room::Frame& frame) override;

 private:
  struct Heard {  // a track we receive
    std::string sid;
    room::Codec codec = room::Codec::kOpus;
    std::shared_ptr<Transcoder> transcoder;  // null: frames pass as they are
  };
  struct Own {  // a track we publish; its place is its index
    std::string sid;
    room::Codec codec;
  };

  // rpc::BidiSession, on the strand.
  bool IsQuick(const room::v1::JoinRequest& message) const override { return message.has_audio(); }
  void OnMessage(const room::v1::JoinRequest& message) override;
  void OnClosed() override;
  void OnHalfClose() override;

  void Join(const room::v1::JoinRoom& message);
  void OnAdmitted(absl::StatusOr<std::shared_ptr<room::Participant>> participant);
  void Do(const room::v1::JoinRequest& message);
  void Leave();
  void OnAudio(const room::v1::AudioFrame& audio);
  void SendOrClose(room::v1::JoinResponse response);
  void SendAudio(const std::string& track_sid, room::Codec codec, const room::Frame& frame);
  void Transcode(const Heard& heard, const room::Frame& frame);

  const std::shared_ptr<Host> host_;
  const TraceContext trace_;
  // On the strand.
  bool asked_ = false;
  bool half_closed_ = false;
  bool over_ = false;
  std::shared_ptr<room::Participant> participant_;
  std::vector<room::v1::JoinRequest> early_;
  std::vector<Own> own_;
  room::v1::Codec receive_codec_ = room::v1::CODEC_UNSPECIFIED;  // set before the join
  // In calls of the room, which come one at a time.
  std::map<uint32_t, Heard> heard_;
  std::atomic<int> transcoding_{0};  // frames waiting on the strand
};

}  // namespace parley::room_server
