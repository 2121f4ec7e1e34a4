#pragma once
// One peer connection of an engine, as the rest of the program sees it.
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "webrtc/link.h"
#include "webrtc/plan.h"
#include "webrtc/receive_stream.h"
#include "webrtc/video_packet.h"

namespace parley::webrtc {

// Calls come on the engine's thread, one at a time: they must neither block nor wait for another
// thread that calls the engine.
class PeerObserver {
 public:
  virtual ~PeerObserver() = default;
  // Keys are agreed on: media flows.
  virtual void OnConnected() = 0;
  // In order; a gap in the timestamps is what was lost, or a pause of the sender's. `tag` as in
  // ReceivePlan.
  virtual void OnAudio(uint32_t tag, const AudioPacket& packet) = 0;
  // A packet of video, as it came: not always in order.
  virtual void OnVideo(uint32_t tag, const VideoPacket& packet) {
    static_cast<void>(tag);
    static_cast<void>(packet);
  }
  // The other side needs a picture of this layer of a video track sent to it that needs no other.
  // Comes again until it is there.
  virtual void OnPictureWanted(uint32_t track, uint8_t layer) {
    static_cast<void>(track);
    static_cast<void>(layer);
  }
  virtual void OnChannelOpen(std::string_view label) = 0;
  virtual void OnData(std::string_view label, Bytes message) = 0;
  // Once a second while it is connected.
  virtual void OnLink(const LinkFigures& figures) = 0;
  // The connection is over (nothing heard for too long since the first plan was applied, closed by
  // the other side, broken protocol). Last call; none after Peer::Close() has returned to the
  // engine's thread.
  virtual void OnClosed(std::string_view why) = 0;
};

class EngineCore;

// Thread-safe; nothing blocks. Harmless once the engine is gone.
class Peer {
 public:
  static constexpr size_t kMaxQueuedData = 1 << 20;  // bytes on their way to the engine's thread

  Peer(std::shared_ptr<EngineCore> core, uint64_t id) : core_(std::move(core)), id_(id) {}
  ~Peer();  // as Close()
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // Takes what the last offer and answer settled. Call before the answer is sent.
  void Apply(Plan plan);
  // A packet of 20 ms of Opus for the other side. No allocation. False: dropped, the engine is
  // behind.
  bool SendAudio(uint32_t track, uint32_t timestamp, uint32_t level, std::string_view payload);
  // A packet of a video track, of any of its layers: one of them goes to the other side. No
  // allocation. False: as above.
  bool SendVideo(uint32_t track, const VideoPacket& packet);
  // Asks the other side for a picture that needs no other, at most twice a second. `tag` as in
  // OnVideo.
  void AskForPicture(uint32_t tag, uint8_t layer);
  // The highest layer of a video track that is of use to the other side; -1: none for now.
  void SetVideoWish(uint32_t track, int highest_layer);
  // On the data channel of this label; until the other side has opened it, some of it waits. False:
  // the other side does not read.
  bool SendData(std::string_view label, std::string message);
  void Close();

 private:
  const std::shared_ptr<EngineCore> core_;
  const uint64_t id_;
  const std::shared_ptr<std::atomic<size_t>> queued_ = std::make_shared<std::atomic<size_t>>(0);
};

}  // namespace parley::webrtc
