#pragma once
// A TCP relay between a client and a server under test that can misbehave on command: cut, stall,
// delay, go one-way. For tests of what happens when a network does.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>

namespace parley::testing {

// Thread-safe; owns one thread. Every change applies to connections that are open and to new ones.
class TcpGate {
 public:
  enum class Flow {
    kOpen,      // both ways
    kStalled,   // connections stay, no byte moves; what was sent waits and is not lost
    kToServer,  // one-way: the server hears the client, the client hears nothing
    kToClient,  // the other way round
    kRefused,   // new connections are closed at once; open ones go on
  };

  // Listens on a free port of 127.0.0.1 and relays to `target` ("127.0.0.1:port" or "unix:/path"),
  // which need not be there yet.
  //   InvalidArgument  the target is no numeric address and port, nor a path that fits
  //   Unavailable      no port could be bound
  static absl::StatusOr<std::unique_ptr<TcpGate>> Start(const std::string& target);
  ~TcpGate();
  TcpGate(const TcpGate&) = delete;
  TcpGate& operator=(const TcpGate&) = delete;

  std::string address() const;  // "127.0.0.1:port", for the client

  void SetFlow(Flow flow);
  // Bytes are handed on this much later, in both directions; in order.
  void SetDelay(absl::Duration delay);
  // Resets every open connection, as a pulled cable followed by a reboot would. New ones may come.
  void Cut();

  int open_connections() const;
  int64_t accepted() const;  // connections since the start
  int64_t bytes_to_server() const;
  int64_t bytes_to_client() const;

 private:
  TcpGate() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace parley::testing
