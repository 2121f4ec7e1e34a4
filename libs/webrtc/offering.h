#pragma once
// The other way round than Negotiation: this side offers what it sends, the other side answers.
// One section of data channels and one for each track, on one transport; ICE-lite and DTLS server,
// or full ICE and whichever DTLS role the answer leaves us. A track that ends leaves its section
// for the next one. No I/O. Not thread-safe.
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "webrtc/endpoint.h"
#include "webrtc/local_transport.h"
#include "webrtc/plan.h"
#include "webrtc/sdp.h"

namespace parley::webrtc {

class Offering {
 public:
  // Arguments as of Negotiation. `channels`: those that this side opens.
  Offering(std::string fingerprint, std::vector<Endpoint> candidates,
           std::vector<ChannelPlan> channels);
  // With full ICE.
  Offering(std::string fingerprint, IceCredentials credentials, std::vector<ChannelPlan> channels);

  // As of Negotiation.
  void AddTrack(uint32_t number, std::string sid, std::string stream,
                std::string_view codec = kOpus);
  void RemoveTrack(uint32_t number);
  // The next offer brings new ICE credentials: for a client that has a new network.
  void RestartIce();
  // The same with full ICE, whose agent has begun anew.
  void RestartIce(IceCredentials credentials);

  struct Offer {
    uint32_t id = 0;  // rises by one
    std::string sdp;
    std::map<std::string, std::string> mid_to_track;  // mid → sid
  };
  // nullopt: nothing changed since the last offer, or its answer has not come; ask again after
  // Accept().
  std::optional<Offer> Next();
  // Forgets an offer whose answer will not come any more: it was lost on the way.
  void Withdraw();

  // `id`: of the offer it answers; 0 = the client does not say.
  //   NotFound         no such offer waits for an answer: pass over it
  //   InvalidArgument  the answer does not fit the offer, or cannot be served
  absl::StatusOr<Plan> Accept(const Sdp& answer, uint32_t id);

 private:
  struct Track {
    uint32_t number = 0;
    std::string sid;
    std::string stream;
    std::string codec;
    uint32_t ssrc = 0;
  };
  struct Section {
    bool used = false;
    bool video = false;    // for good
    uint32_t number = 0;   // of its track
    bool offered = false;  // the last offer said so
  };

  const Track& TrackOf(const Section& section) const;
  std::string TrackSection(const Section& section, const std::string& mid) const;
  std::string VideoSection(const Section& section, const std::string& mid) const;

  LocalTransport local_;
  const std::vector<ChannelPlan> channels_;
  const std::string cname_;
  const std::string session_id_;
  std::vector<Track> tracks_;
  std::vector<Section> sections_;  // of tracks; the one of data channels comes before them
  std::string remote_fingerprint_;
  uint32_t id_ = 0;
  bool waiting_ = false;
  bool changed_ = true;  // the first offer carries the data channels alone
};

}  // namespace parley::webrtc
