#pragma once
// People in rooms over WebRTC, as LiveKit's SDKs join them on /rtc/v1: signalling over a WebSocket,
// one peer connection with a microphone, sections to listen on and data channels. They speak to any
// server of that protocol, so that two can be given the same load.
//
// Each sends a packet of 20 ms every 20 ms, which carries the time at which it was sent.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "event/loop.h"
#include "webrtc/dtls.h"

namespace parley::bench {

// How long it took somebody to get in, since it began to connect.
struct Arrival {
  double joined_ms = -1;     // the server said `join`
  double connected_ms = -1;  // keys are agreed on
  double heard_ms = -1;      // the first packet of somebody else's
};

struct Heard {                     // of a stretch of time
  std::vector<double> latency_ms;  // from the sender's socket to the listener's
  int64_t sent = 0;                // packets
  int64_t received = 0;
  int64_t behind = 0;  // packets that this program itself sent over 10 ms late
  int lost = 0;        // people whose connection ended
};

// One thread, that of whoever calls.
class RtcCrowd {
 public:
  RtcCrowd();
  ~RtcCrowd();  // all leave
  RtcCrowd(const RtcCrowd&) = delete;
  RtcCrowd& operator=(const RtcCrowd&) = delete;

  // One more. `address`: "127.0.0.1:port" of the signalling. Does not wait.
  absl::Status Add(const std::string& address, const std::string& token);
  // Until everybody hears somebody.
  absl::Status WaitHearing(absl::Duration timeout);
  // Everybody talks for so long.
  Heard Talk(absl::Duration time);
  std::vector<Arrival> arrivals() const;

 private:
  class Person;
  friend class Person;
  void Step();
  void Watch(int fd, Person* person, bool media);

  event::Loop loop_;  // of the data channels
  const std::shared_ptr<webrtc::DtlsContext> context_;
  const int epoll_;
  std::vector<std::unique_ptr<Person>> people_;
  int64_t next_tick_us_ = 0;
  Heard heard_;
};

}  // namespace parley::bench
