#pragma once
// ICE over TCP (RFC 6544) for clients whose network lets no UDP through: one listening port whose
// streams carry datagrams with their length before them (RFC 4571). Belongs to one loop's thread.
// Internal to `webrtc`.
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>

#include "event/loop.h"
#include "webrtc/bytes.h"
#include "webrtc/endpoint.h"

namespace parley::webrtc {

// Finds the datagrams in a stream.
class TcpFrames {
 public:
  static constexpr size_t kMaxFrame = 2048;  // no datagram that is meant for us is longer

  // Calls `sink` for each datagram that is whole by now; it may write into it. False: the stream
  // is broken.
  bool Take(Bytes bytes, const std::function<void(std::span<uint8_t>)>& sink);

 private:
  std::string kept_;  // the beginning of a datagram, and its length
};

class TcpPort {
 public:
  static constexpr size_t kMaxStreams = 4096;
  static constexpr size_t kMaxUnsent = 64 << 10;  // bytes of one stream; then datagrams are dropped
  static constexpr int64_t kAnsweredUs = 10'000'000;  // who was not answered by then is a stranger
  static constexpr int64_t kSilentUs = 60'000'000;    // peers show themselves every few seconds

  using Sink = std::function<void(const Endpoint& from, std::span<uint8_t> datagram)>;

  // `address`: port 0 picks a free one.
  //   Unavailable  the port is taken
  static absl::StatusOr<std::unique_ptr<TcpPort>> Listen(const Endpoint& address);
  ~TcpPort();
  TcpPort(const TcpPort&) = delete;
  TcpPort& operator=(const TcpPort&) = delete;

  // From now on streams are accepted.
  void Start(event::Loop& loop, Sink sink);
  // Ends all streams; the port is free.
  void Stop();
  // Dropped when the stream is gone or does not take it.
  void Send(const Endpoint& to, Bytes datagram);
  // Closes who is a stranger or silent. About once a second.
  void Tick(int64_t now_us);
  uint16_t port() const { return port_; }
  size_t streams() const { return streams_.size(); }

 private:
  struct Stream {
    int fd = -1;
    std::unique_ptr<event::FdWatcher> watcher;
    TcpFrames frames;
    std::string unsent;
    int64_t since_us = 0;
    int64_t heard_us = 0;
    bool answered = false;
    bool broken = false;
  };

  TcpPort() = default;
  void Accept();
  void OnReady(const Endpoint& from, bool readable, bool writable);
  void Read(const Endpoint& from, Stream& stream);
  void Flush(Stream& stream);
  void Watch(const Endpoint& from, Stream& stream);
  void Close(const Endpoint& from);

  int fd_ = -1;
  uint16_t port_ = 0;
  event::Loop* loop_ = nullptr;
  Sink sink_;
  std::unique_ptr<event::FdWatcher> watcher_;
  std::unordered_map<Endpoint, std::unique_ptr<Stream>, EndpointHash> streams_;
};

}  // namespace parley::webrtc
