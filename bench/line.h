#pragma once
// How a caller of a load is connected: to the room server's own media stream, or as browsers are.
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace parley::bench {

// What a line tells its caller; from any thread, one after another.
struct LineEvents {
  std::function<void()> published;                // our voice has a track: Send() may begin
  std::function<void()> heard;                    // somebody listens to it
  std::function<void()> hears;                    // somebody's voice will come
  std::function<void(uint32_t timestamp)> audio;  // a frame of it, on the 48 kHz media clock
  std::function<void()> over;                     // once, last
};

// Thread-safe.
class Line {
 public:
  virtual ~Line() = default;
  // 20 ms of Opus. False: it was dropped, since the line does not keep up.
  virtual bool Send(uint32_t timestamp, uint8_t level, std::string_view packet) = 0;
  // `over` follows.
  virtual void HangUp() = 0;
  // At once, whatever waits.
  virtual void Cut() = 0;
};

// A gRPC stream on a connection of its own.
std::shared_ptr<Line> MediaStream(const std::string& media_url, const std::string& token,
                                  LineEvents events);

// A WebRTC peer connection with a socket of its own: ICE, DTLS and SRTP, and its signalling, which
// goes to the room server directly and not by way of an API server's WebSocket.
class Exchange;
std::shared_ptr<Line> PeerConnection(Exchange& exchange, const std::string& media_url,
                                     const std::string& token, LineEvents events);

// The sockets of all peer connections and the thread that reads them. Outlives them.
class Exchange {
 public:
  Exchange();
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace parley::bench
