#pragma once
// What offers and answers settle about one peer connection, without any of the I/O: which section
// carries which track, under which keys and numbers. The other side offers, this side answers:
// ICE-lite, DTLS server, everything bundled on one transport. Not thread-safe.
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "webrtc/endpoint.h"
#include "webrtc/rtp.h"
#include "webrtc/sdp.h"

namespace parley::webrtc {

// Audio that the other side may send.
struct ReceivePlan {
  static constexpr uint32_t kNobody = UINT32_MAX;
  std::string mid;
  std::string track_id;  // of its msid
  std::vector<uint32_t> ssrcs;
  uint8_t payload_type = 0;
  RtpExtensions extensions;
  // Set by whoever knows the track: its name in PeerObserver::OnAudio. kNobody: packets are
  // dropped.
  uint32_t tag = kNobody;
};

// Audio that goes to the other side.
struct SendPlan {
  uint32_t track = 0;  // as in AddTrack
  uint32_t ssrc = 0;
  uint8_t payload_type = 0;
  uint8_t audio_level_id = 0;
};

// What a Peer needs to know of the last offer and answer.
struct Plan {
  std::string local_ufrag;
  std::string local_pwd;
  std::string remote_ufrag;
  std::string fingerprint;  // SHA-256 of the other side's certificate
  uint16_t sctp_port = 0;   // 0: no data channels
  std::vector<ReceivePlan> receive;
  std::vector<SendPlan> send;
};

class Negotiation {
 public:
  // `fingerprint`: of our certificate. `candidates`: where the engine may be reached.
  Negotiation(std::string fingerprint, std::vector<Endpoint> candidates);

  // A track that the other side shall hear. `number` names it in plans; `sid` and `stream` go into
  // the answer (msid).
  void AddTrack(uint32_t number, std::string sid, std::string stream);
  void RemoveTrack(uint32_t number);

  struct Answer {
    std::string sdp;
    std::map<std::string, std::string> mid_to_track;  // mid → sid, of the tracks sent
    Plan plan;
  };
  //   InvalidArgument  the offer cannot be served: no transport, no SHA-256 fingerprint, sections
  //                    that changed their kind
  absl::StatusOr<Answer> Accept(const Sdp& offer);

  // Does a new offer have to come, so that a track finds its section or gives one back?
  bool NeedsOffer() const;
  // How many sections that offer must have more than the last.
  size_t MissingSections() const;

 private:
  struct Track {
    uint32_t number = 0;
    std::string sid;
    std::string stream;
    uint32_t ssrc = 0;
  };
  struct Section {
    std::string kind;
    bool receives = false;  // the other side does
    int track = -1;         // number of the track it carries
    bool ended = false;     // its track is gone; the next answer says so
  };

  absl::Status TakeTransport(const Sdp& offer);
  std::string AnswerSection(const SdpSection& offered, Section& section, Answer* answer);
  std::string AnswerAudio(const SdpSection& offered, Section& section, Answer* answer);
  std::string TransportLines(const SdpSection& offered);
  Track* FindTrack(int number);
  Track* Unplaced();

  const std::string fingerprint_;
  const std::vector<Endpoint> candidates_;
  const std::string cname_;
  const std::string session_id_;
  std::vector<Section> sections_;
  std::vector<Track> tracks_;
  std::string local_ufrag_;
  std::string local_pwd_;
  std::string remote_ufrag_;
  std::string remote_fingerprint_;
  uint32_t version_ = 0;
  bool candidates_told_ = false;
};

}  // namespace parley::webrtc
