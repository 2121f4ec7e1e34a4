#pragma once
// Full ICE (RFC 8445, 8838) for connections that this side opens, by libnice: host candidates on
// every interface, UDP and TCP, trickled. Each agent has sockets of its own; all agents of an
// IceThread share its GLib loop.
#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "webrtc/bytes.h"
#include "webrtc/local_transport.h"

namespace parley::webrtc {

// The thread with GLib's loop. Must outlive its agents.
class IceThread {
 public:
  IceThread();
  ~IceThread();  // what was posted before has run
  IceThread(const IceThread&) = delete;
  IceThread& operator=(const IceThread&) = delete;

  // Thread-safe.
  void Post(std::function<void()> work);

  struct Impl;

 private:
  friend class IceAgent;
  const std::unique_ptr<Impl> impl_;
};

// Thread-safe.
class IceAgent {
 public:
  enum class State { kConnecting, kConnected, kFailed };
  // Calls come on the IceThread, until the agent's destructor has run there.
  struct Handlers {
    std::function<void(std::string line)> on_candidate;  // "candidate:…", a local one
    std::function<void(State state)> on_state;
    std::function<void(Bytes datagram)> on_datagram;
  };
  struct Options {
    bool controlling = true;
    bool loopback = false;  // 127.0.0.1 is an interface, too
  };

  //   Internal  libnice refuses
  static absl::StatusOr<std::unique_ptr<IceAgent>> Create(IceThread& thread, const Options& options,
                                                          Handlers handlers);
  ~IceAgent();
  IceAgent(const IceAgent&) = delete;
  IceAgent& operator=(const IceAgent&) = delete;

  // Of this side.
  IceCredentials credentials() const;
  // The other side's, once for each beginning; its candidates come after it.
  void SetRemote(const IceCredentials& credentials);
  // "candidate:…"; what is none is passed over.
  void AddCandidate(std::string_view line);
  // Begins anew: new credentials(). What is connected stays so until the new path is found. Local
  // candidates are told again.
  void Restart();
  // False: there is no path (yet).
  bool Send(Bytes datagram);

 private:
  struct Impl;
  IceAgent(IceThread& thread, std::shared_ptr<Impl> impl);

  IceThread& thread_;
  const std::shared_ptr<Impl> impl_;
};

}  // namespace parley::webrtc
