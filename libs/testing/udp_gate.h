#pragma once
// A UDP relay on loopback between clients and a server under test, that can misbehave: lose (one by
// one or in bursts), delay, jitter, reorder, duplicate and throttle datagrams, or cut the path.
// What it does is drawn from a seed, so that a run can be repeated.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>

namespace parley::testing {

// Of each direction, independently.
struct Impairment {
  double loss = 0;  // share of datagrams, 0 to 1
  int burst = 1;    // so many in a row are lost each time; `loss` stays their share
  absl::Duration delay = absl::ZeroDuration();   // of every datagram
  absl::Duration jitter = absl::ZeroDuration();  // up to so much more, evenly drawn; order is kept
  double reorder = 0;  // share that is held back by `reorder_by` and so overtaken
  absl::Duration reorder_by = absl::Milliseconds(30);
  double duplicate = 0;  // share that comes twice
  int64_t rate_bps = 0;  // 0 = any; datagrams that would wait for longer than 300 ms are lost
};

// Thread-safe; owns one thread.
class UdpGate {
 public:
  // Listens on a free port of 127.0.0.1 and relays to 127.0.0.1:`target`; each client address has
  // its own port towards the server.
  //   Unavailable  no socket
  static absl::StatusOr<std::unique_ptr<UdpGate>> Start(uint16_t target, uint64_t seed);
  ~UdpGate();
  UdpGate(const UdpGate&) = delete;
  UdpGate& operator=(const UdpGate&) = delete;

  uint16_t port() const;
  // From now on; what is on its way stays so.
  void Set(const Impairment& impairment);
  // Closed: nothing passes, either way.
  void SetOpen(bool open);

  struct Figures {
    uint64_t to_server = 0;  // that came to the gate
    uint64_t to_client = 0;
    uint64_t lost = 0;
    uint64_t duplicated = 0;
    uint64_t reordered = 0;
  };
  Figures figures() const;

 private:
  UdpGate() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace parley::testing
