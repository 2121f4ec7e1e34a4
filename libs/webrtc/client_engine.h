#pragma once
// Peer connections that this side opens, to somebody else's server: each with sockets of its own
// (full ICE, IceAgent), all on one loop thread. What Engine is for a server.
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "event/loop.h"
#include "webrtc/negotiation.h"
#include "webrtc/offering.h"
#include "webrtc/peer.h"

namespace parley::webrtc {

// As PeerObserver: calls come on the engine's loop.
class ClientObserver : public PeerObserver {
 public:
  // For the other side: "candidate:…".
  virtual void OnCandidate(const std::string& line) = 0;
  // No path is left: ICE may begin anew.
  virtual void OnPathLost() = 0;
};

class ClientEngineCore;
class ClientConnection;

// One peer connection. On the engine's loop, but for SendAudio.
class ClientPeer {
 public:
  ClientPeer(std::shared_ptr<ClientEngineCore> core, uint64_t id,
             std::shared_ptr<ClientConnection> connection);
  ~ClientPeer();  // as Close()
  ClientPeer(const ClientPeer&) = delete;
  ClientPeer& operator=(const ClientPeer&) = delete;

  IceCredentials credentials() const;
  // What the description that came says of its sender: ICE begins, or goes on with new credentials.
  //   InvalidArgument  it has none
  absl::Status SetRemote(const Sdp& sdp);
  // One that came by itself; may come before SetRemote.
  void AddCandidate(std::string_view line);
  // New credentials for the next description of ours.
  void RestartIce();

  void Apply(Plan plan);
  // Thread-safe; no allocation. False: dropped.
  bool SendAudio(uint32_t track, uint32_t timestamp, uint32_t level, std::string_view payload);
  // As Peer::SendData; a peer that does not read ends its connection.
  void SendData(std::string_view label, std::string_view message);
  void Close();

 private:
  const std::shared_ptr<ClientEngineCore> core_;
  const uint64_t id_;
  std::shared_ptr<ClientConnection> connection_;  // null: closed
};

class ClientEngine {
 public:
  //   Internal  no certificate, or no event descriptor
  static absl::StatusOr<std::unique_ptr<ClientEngine>> Start();
  // Waits for its threads. All peers must be gone, and with them whoever posts to the loop.
  ~ClientEngine();
  ClientEngine(const ClientEngine&) = delete;
  ClientEngine& operator=(const ClientEngine&) = delete;

  // For whoever lives with the peers. Post what may run after this has gone only while it is held.
  event::Loop& loop();
  // Ends the loop and waits for it; what is posted later never runs. Idempotent.
  void Stop();

  // ---- on the loop ----
  struct Options {
    bool controlling = true;
    bool loopback = false;  // the server is on this machine
  };
  //   Internal  libnice refuses
  absl::StatusOr<std::shared_ptr<ClientPeer>> Open(const Options& options,
                                                   std::shared_ptr<ClientObserver> observer);
  const std::string& fingerprint() const;

 private:
  explicit ClientEngine(std::shared_ptr<ClientEngineCore> core);
  const std::shared_ptr<ClientEngineCore> core_;
};

}  // namespace parley::webrtc
