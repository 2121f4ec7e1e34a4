#pragma once
// All peer connections of a server: one UDP port, one thread, no locks on the way of a packet.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "webrtc/negotiation.h"
#include "webrtc/offering.h"
#include "webrtc/peer.h"

namespace parley::webrtc {

struct EngineOptions {
  std::string address = "127.0.0.1";  // IP to bind to; "0.0.0.0" or "::" = all
  int udp_port = 0;                   // 0 = any free one
  std::vector<std::string> announce;  // IPs told to clients; default: those of `address`
  // A connection ends when nothing of its other side was heard for this long. Browsers show
  // themselves every 2.5 s.
  absl::Duration silence_timeout = absl::Seconds(30);
};

struct EngineFigures {
  uint64_t connections = 0;
  uint64_t packets_in = 0;       // audio
  uint64_t packets_out = 0;      // audio
  uint64_t packets_skipped = 0;  // audio that never came
  uint64_t resent = 0;           // audio that the other side had missed
  uint64_t refused = 0;          // datagrams of strangers, forged, replayed or malformed
  uint64_t dropped = 0;          // audio that the engine was too late for
};

class Engine {
 public:
  //   InvalidArgument  an address is none
  //   Unavailable      the port is taken
  //   Internal         no certificate can be made
  static absl::StatusOr<std::unique_ptr<Engine>> Start(const EngineOptions& options);
  // Closes all peers without telling their observers; waits for its thread. Not from an observer.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Thread-safe, as all below.
  std::shared_ptr<Peer> Open(std::shared_ptr<PeerObserver> observer);
  Negotiation NewNegotiation() const;
  Offering NewOffering(std::vector<ChannelPlan> channels) const;
  int port() const;
  EngineFigures figures() const;

 private:
  explicit Engine(std::shared_ptr<EngineCore> core);
  const std::shared_ptr<EngineCore> core_;
};

}  // namespace parley::webrtc
