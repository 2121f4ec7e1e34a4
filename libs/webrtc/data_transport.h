#pragma once
// Data channels (RFC 8831 and 8832) over one SCTP association (usrsctp), carried by datagrams of
// somebody else's. Belongs to one loop's thread.
//
// usrsctp keeps one state for the whole process. Its timers run on whichever loop ticks; what they
// send for an association of another loop is posted there.
#include <absl/status/status.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "event/loop.h"
#include "webrtc/bytes.h"

namespace parley::webrtc {

inline constexpr size_t kMaxDataMessage = 80 << 10;  // larger ones end the association
inline constexpr size_t kMaxDataQueued = 512 << 10;  // waiting for the other side to take them
inline constexpr size_t kMaxChannels = 64;
inline constexpr size_t kMaxLabelBytes = 128;

struct DataChannel {
  uint16_t id = 0;
  std::string label;
  bool ordered = true;
  std::optional<uint32_t> max_retransmits;  // nullopt: reliable
};

// The message that opens a channel. nullopt: malformed.
std::optional<DataChannel> ParseChannelOpen(Bytes message);
std::string WriteChannelOpen(const DataChannel& channel);

class DataTransport {
 public:
  struct Handlers {
    std::function<void(Bytes packet)> send;  // an SCTP packet, at most 1,200 bytes
    std::function<void(const DataChannel& channel)> on_open;
    std::function<void(const DataChannel& channel, Bytes message)> on_message;
  };

  // `even_ids`: the channels opened here have even ids (the DTLS client's side).
  DataTransport(event::Loop& loop, bool even_ids, Handlers handlers);
  ~DataTransport();
  DataTransport(const DataTransport&) = delete;
  DataTransport& operator=(const DataTransport&) = delete;

  //   Internal  usrsctp refuses
  absl::Status Start(uint16_t port);
  void Take(Bytes packet);
  // Opens a channel; messages may follow at once.
  absl::Status Open(std::string_view label, bool ordered, std::optional<uint32_t> max_retransmits);
  // On the newest channel of this label.
  //   NotFound           no such channel
  //   ResourceExhausted  too much is waiting; of a reliable channel nothing may be left out, so end
  //                      the connection
  absl::Status Send(std::string_view label, Bytes message);
  // Every 10 to 50 ms.
  void Tick();
  // The other side broke the protocol or left: the transport is of no use any more.
  bool failed() const;

  struct Impl;  // for data_transport.cc

 private:
  const std::shared_ptr<Impl> impl_;
};

}  // namespace parley::webrtc
