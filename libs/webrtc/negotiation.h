#pragma once
// What offers and answers settle about one peer connection, without any of the I/O: which section
// carries which track, under which keys and numbers. The other side offers, this side answers:
// ICE-lite and DTLS server, or full ICE and DTLS client; everything bundled on one transport. Not
// thread-safe.
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "webrtc/endpoint.h"
#include "webrtc/local_transport.h"
#include "webrtc/plan.h"
#include "webrtc/sdp.h"

namespace parley::webrtc {

class Negotiation {
 public:
  // `fingerprint`: of our certificate. `candidates`: where the engine may be reached.
  Negotiation(std::string fingerprint, std::vector<Endpoint> candidates);
  // With full ICE.
  Negotiation(std::string fingerprint, IceCredentials credentials);

  // With full ICE, whose agent has begun anew because the next offer does. Before Accept.
  void RestartIce(IceCredentials credentials);

  // A track that the other side shall receive. `number` names it in plans; `sid` and `stream` go
  // into the answer (msid). `codec`: "opus", or "vp8", "vp9", "h264" as its publisher sends it.
  void AddTrack(uint32_t number, std::string sid, std::string stream,
                std::string_view codec = kOpus);
  void RemoveTrack(uint32_t number);
  // The other side is going to offer a track under this msid, coded so ("vp9"); a later word about
  // it counts. What is not named is answered with the first codec of its offer that is carried.
  void ExpectVideo(const std::string& track_id, std::string_view codec);

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
  // How many sections of audio, or video, that offer must have more than the last.
  size_t MissingSections(bool video = false) const;

 private:
  struct Track {
    uint32_t number = 0;
    std::string sid;
    std::string stream;
    std::string codec;
    uint32_t ssrc = 0;
  };
  struct Section {
    std::string kind;
    bool receives = false;            // the other side does
    int track = -1;                   // number of the track it carries
    bool ended = false;               // its track is gone; the next answer says so
    std::vector<std::string> codecs;  // names
  };

  absl::Status TakeTransport(const Sdp& offer);
  std::string AnswerSection(const SdpSection& offered, Section& section, Answer* answer);
  std::string AnswerVideo(const SdpSection& offered, Section& section, Answer* answer);
  // The track that the section carries from now on; null: none.
  const Track* Place(const SdpSection& offered, Section& section);
  void TellTrack(const SdpSection& offered, const Track& track, SendPlan plan, Answer* answer,
                 std::string* lines) const;
  std::string AnswerAudio(const SdpSection& offered, Section& section, Answer* answer);
  std::string TransportLines(const SdpSection& offered);
  Track* FindTrack(int number);
  // One of these codecs that has no section; null: none.
  Track* Unplaced(const std::vector<std::string>& codecs);
  bool Placed(const Track& track) const;

  LocalTransport local_;
  const std::string cname_;
  const std::string session_id_;
  std::vector<Section> sections_;
  std::vector<Track> tracks_;
  std::map<std::string, std::string, std::less<>> expected_;  // codecs, by track id of the msid
  std::string remote_ufrag_;
  std::string remote_fingerprint_;
  uint32_t version_ = 0;
  bool candidates_told_ = false;
};

}  // namespace parley::webrtc
