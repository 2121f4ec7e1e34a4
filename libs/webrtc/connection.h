#pragma once
// The state of one peer connection on the engine's thread. Internal to `webrtc`.
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "event/loop.h"
#include "webrtc/data_transport.h"
#include "webrtc/dtls.h"
#include "webrtc/early_data.h"
#include "webrtc/endpoint.h"
#include "webrtc/peer.h"
#include "webrtc/send_stream.h"
#include "webrtc/srtp.h"
#include "webrtc/stun.h"
#include "webrtc/video_receiver.h"
#include "webrtc/video_sender.h"

namespace parley::webrtc {

struct Tallies;

// What a connection needs of its engine.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  virtual void SendDatagram(const Endpoint& to, Bytes datagram) = 0;
  virtual event::Loop& loop() = 0;
  virtual const std::shared_ptr<DtlsContext>& dtls() = 0;
  virtual Tallies& tallies() = 0;
};

class Connection final : public RtcpReader {
 public:
  static constexpr size_t kMaxEndpoints = 16;  // that one peer may send from
  static constexpr size_t kMaxStreams = 16;    // that one peer may send

  Connection(ConnectionHost& host, std::shared_ptr<PeerObserver> observer, int64_t now_us);
  ~Connection() override;

  void Apply(Plan plan);
  // Another's ICE finds the way to the peer: from now on everything goes to `remote`, as far as the
  // host can.
  void Reach(const Endpoint& remote);
  // A binding request that names one of our user fragments. True: it is genuine, and `from` is the
  // peer's.
  bool TakeBindingRequest(const StunMessage& message, std::string_view ufrag, const Endpoint& from);
  // Any other datagram from an endpoint of the peer's. May be decrypted in place.
  void Take(std::span<uint8_t> datagram);
  void SendAudio(uint32_t track, uint32_t timestamp, uint32_t level, Bytes payload);
  void SendVideo(uint32_t track, const VideoPacket& packet);
  void AskForPicture(uint32_t tag, uint8_t layer);
  void SetVideoWish(uint32_t track, int highest_layer);
  void SendData(std::string_view label, Bytes message);
  void Tick(int64_t now_us, int64_t silence_us);

  // Not empty: the connection is over, for this reason.
  const std::string& over() const { return over_; }
  bool told() const { return told_; }
  void Tell() {
    told_ = true;
    observer_->OnClosed(over_);
  }
  bool ready() const { return dtls_ != nullptr; }  // has a plan
  const std::vector<std::string>& ufrags() const { return ufrags_; }
  const std::deque<Endpoint>& endpoints() const { return endpoints_; }
  void ForgetOldestEndpoint() { endpoints_.pop_front(); }

 private:
  struct Incoming {
    ReceivePlan plan;
    ReceiveStream stream;
    std::unique_ptr<VideoReceiver> video;  // null: audio
    uint8_t layer = 0;
    int64_t next_picture_us = 0;  // may be asked for
  };
  struct Outgoing {
    uint32_t track = 0;
    SendStream stream;
  };
  struct OutgoingVideo {
    VideoSender stream;
    int64_t next_picture_us = 0;  // may be asked for
  };
  // Hands what a stream puts in order to the observer.
  struct Forward final : ReceiveStream::Sink {
    Forward(PeerObserver& o, uint32_t t) : observer(o), tag(t) {}
    void OnPacket(const AudioPacket& packet) override { observer.OnAudio(tag, packet); }
    PeerObserver& observer;
    const uint32_t tag;
  };
  // Transport-wide feedback: when the packets since `first` came.
  struct Arrivals {
    static constexpr size_t kMost = 256;
    std::array<int64_t, kMost> at_us{};
    uint16_t first = 0;
    size_t count = 0;
    uint8_t sent = 0;
  };

  // RtcpReader
  void OnSenderReport(const SenderReport& report) override;
  void OnReportBlock(const ReportBlock& block) override;
  void OnNack(uint32_t media_ssrc, uint16_t sequence) override;
  void OnPictureLoss(uint32_t media_ssrc) override;
  void OnEstimate(int64_t bps) override;

  void StartDtls(const std::string& fingerprint);
  void TakeDtls(Bytes datagram);
  void OnSecured();
  void StartData();
  void SendOrKeep(std::string_view label, Bytes message, int64_t said_us);
  void SendEarly();
  void OnChannelOpen(const DataChannel& channel);
  void TakeRtp(std::span<uint8_t> datagram);
  void TakeRtcp(std::span<uint8_t> datagram);
  Incoming* Find(uint32_t ssrc);
  // The plan of a source that is heard for the first time, and which of its layers it is.
  const ReceivePlan* PlanOf(Bytes datagram, uint8_t* layer) const;
  void Begin(const ReceivePlan& plan, uint32_t ssrc, uint8_t layer);
  void Take(Incoming& incoming, const RtpPacket& packet, int64_t now_us);
  void UpdateOutgoing(const Plan& plan);
  void LookAtVideo(int64_t now_us);
  void Arrived(uint16_t number, int64_t now_us);
  void AskForMissing(Incoming& incoming, int64_t now_us);
  void SendReports(int64_t now_us);
  void TellLink(std::span<const ReportBlock> blocks, int64_t now_us);
  template <typename Streams>
  void SendSenderReports(const Streams& streams, std::span<const ReportBlock>& left,
                         int64_t now_us);
  void SendArrivals();
  void SendRtcp(RtcpWriter& writer);
  void SendToPeer(Bytes datagram);
  void End(std::string_view why);

  ConnectionHost& host_;
  const std::shared_ptr<PeerObserver> observer_;
  std::string over_;
  bool told_ = false;
  Plan plan_;
  std::vector<std::string> ufrags_;            // ours, the newest last
  std::map<std::string, std::string> pwd_of_;  // by ufrag
  std::deque<Endpoint> endpoints_;             // known to be the peer's, the newest last
  std::optional<Endpoint> remote_;             // where we send to
  int64_t heard_us_;
  bool dtls_client_ = false;
  std::unique_ptr<DtlsTransport> dtls_;
  std::unique_ptr<Srtp> srtp_;
  std::unique_ptr<DataTransport> data_;
  EarlyData early_;
  std::vector<std::unique_ptr<Incoming>> incoming_;
  std::vector<std::unique_ptr<Outgoing>> outgoing_;
  std::vector<std::unique_ptr<OutgoingVideo>> outgoing_video_;
  std::map<uint32_t, int> video_wishes_;  // by track
  std::unique_ptr<Arrivals> arrivals_;    // made when the first is told of
  const uint32_t own_ssrc_;               // of reports when nothing is sent
  int64_t next_report_us_ = 0;
  int64_t next_feedback_us_ = 0;
  int64_t next_look_us_ = 0;
};

}  // namespace parley::webrtc
