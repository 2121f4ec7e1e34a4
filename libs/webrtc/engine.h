#pragma once
// All peer connections of a server: one UDP port (and one of TCP for clients without UDP), one
// thread, no locks on the way of a packet.
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
  int udp_port_last = 0;              // not 0: the first free one of udp_port to udp_port_last
  int tcp_port = -1;                  // 0 = any free one; -1 = no ICE over TCP
  // Told to clients, as Endpoint::ParseName; default: the addresses of `address`. The port is that
  // of a NAT; without one it is the engine's own.
  std::vector<std::string> announce;
  // "ip:port" of a STUN server that is asked, from the engine's own UDP port, how it looks from
  // outside; what it says is announced, too. "": none.
  std::string stun_server;
  // A connection ends when nothing of its other side was heard for this long. Browsers show
  // themselves every 2.5 s.
  absl::Duration silence_timeout = absl::Seconds(30);
};

struct EngineFigures {
  uint64_t connections = 0;
  uint64_t packets_in = 0;  // audio and video, as below
  uint64_t packets_out = 0;
  uint64_t packets_skipped = 0;  // audio that never came
  uint64_t resent = 0;           // what the other side had missed
  uint64_t refused = 0;          // datagrams of strangers, forged, replayed or malformed
  uint64_t dropped = 0;          // what the engine was too late for
};

class Engine {
 public:
  //   InvalidArgument  an address is none
  //   Unavailable      the port is taken, or the STUN server does not answer (1.5 s)
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
  int tcp_port() const;  // -1: none
  std::vector<std::string> candidates()
      const;  // "192.0.2.1:7882"; those over TCP begin with "tcp "
  EngineFigures figures() const;

 private:
  explicit Engine(std::shared_ptr<EngineCore> core);
  const std::shared_ptr<EngineCore> core_;
};

}  // namespace parley::webrtc
