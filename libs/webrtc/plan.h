#pragma once
// What the last offer and answer settled, as a peer connection needs to know it.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "webrtc/rtp.h"
#include "webrtc/video_packet.h"

namespace parley::webrtc {

// Audio or video that the other side may send.
struct ReceivePlan {
  static constexpr uint32_t kNobody = UINT32_MAX;
  std::string mid;
  std::string track_id;  // of its msid
  std::vector<uint32_t> ssrcs;
  uint8_t payload_type = 0;
  RtpExtensions extensions;
  std::optional<VideoCodec> video;  // nullopt: audio
  std::vector<std::string> rids;    // of the layers it sends at once, the lowest first
  // Set by whoever knows the track: its name in PeerObserver::OnAudio and OnVideo. kNobody: packets
  // are dropped.
  uint32_t tag = kNobody;
};

// Audio or video that goes to the other side.
struct SendPlan {
  uint32_t track = 0;  // as in AddTrack
  uint32_t ssrc = 0;
  uint8_t payload_type = 0;
  uint8_t audio_level_id = 0;
  uint8_t abs_send_time_id = 0;
  bool video = false;
};

// A data channel that this side opens.
struct ChannelPlan {
  std::string label;
  bool ordered = true;
  std::optional<uint32_t> max_retransmits;  // nullopt: reliable
};

struct Plan {
  std::string local_ufrag;
  std::string local_pwd;
  std::string remote_ufrag;
  std::string fingerprint;   // SHA-256 of the other side's certificate
  bool dtls_client = false;  // we begin the DTLS handshake, once there is a path
  uint16_t sctp_port = 0;    // 0: no data channels
  std::vector<ReceivePlan> receive;
  std::vector<SendPlan> send;
  // Opened once, when data may flow. Empty: the other side opens them.
  std::vector<ChannelPlan> channels;
};

}  // namespace parley::webrtc
