#pragma once
// The agent's voice on its way out: samples as they are synthesised, played at the pace of real
// time as Opus, each frame 20 ms of absolute time after the one before. Where the server keeps the
// pace, frames are handed over some time ahead, so that the job wakes up once for several of them
// and a busy machine makes none late.
#include <absl/time/time.h>

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "audio/opus.h"
#include "event/loop.h"

namespace parley::agent {

// Loop thread only. Allocates only to hold more than ever before.
class Playout {
 public:
  static constexpr int kRateHz = 24'000;
  static constexpr size_t kFrameSamples = kRateHz / 50;
  static constexpr absl::Duration kMostAhead = absl::Milliseconds(240);

  struct Frame {
    std::string_view packet;  // 20 ms
    uint32_t timestamp;       // on the 48 kHz media clock
    uint32_t level;           // -dBov
    int64_t due_us;           // by the loop's clock; 0: now
    bool more;                // another follows before anything else happens
  };
  struct Sinks {
    std::function<void(const Frame&)> frame;
    // Frames that are due later than this, and were handed over, are not to be heard.
    std::function<void(int64_t after_us)> cut;
    // A frame of the speech whose time has come, as samples, and when that was. May be empty.
    std::function<void(std::span<const int16_t> frame, int64_t due_us)> played;
    // So much of the speech has come to its time.
    std::function<void(uint64_t speech, int64_t position_us)> progress;
  };
  // Room audio at little cost; 48 kbit/s while the agent speaks.
  static absl::StatusOr<audio::OpusEncoder> MakeEncoder() {
    return audio::OpusEncoder::Create(
        {.rate_hz = kRateHz, .bitrate_bps = 48'000, .complexity = 0, .low_delay = true});
  }
  // `ahead`: how long before its time a frame may be handed over; at most kMostAhead is used.
  Playout(event::Loop& loop, audio::OpusEncoder encoder, Sinks sinks,
          absl::Duration ahead = absl::ZeroDuration());

  // A new speech: what was kept for the last one is forgotten.
  void Begin();
  void Append(std::span<const int16_t> samples);
  // 20 ms that are Opus already: they go out as they are, and Sinks::played hears nothing of them.
  void AppendPacket(std::string_view packet, uint32_t level);
  // Plays what there is and what comes. The first frame goes out at once.
  void Start(uint64_t speech);
  // What was handed over and is not yet due is taken back, and goes out again after Resume().
  void Pause();
  void Resume();
  void Clear();
  // Says how far the speech is, when it has moved since that was last said.
  void TellProgress();
  bool running() const { return running_; }

 private:
  static constexpr size_t kMostFrames = 13;  // of kMostAhead, and the one due now
  struct Encoded {
    std::array<uint8_t, audio::OpusEncoder::kMaxPacketBytes> packet;
    size_t bytes = 0;
    size_t samples = 0;  // of the speech; a last piece ends in silence
    uint32_t level = 0;
    uint32_t timestamp = 0;
    int64_t due_us = 0;
  };
  // What waits to be played: so many samples, or one packet of so many bytes.
  struct Piece {
    size_t samples = 0;
    size_t bytes = 0;
    uint32_t level = 0;  // of the packet
  };
  Encoded& At(size_t place) { return ring_[(first_ + place) % kMostFrames]; }
  std::span<int16_t> SoundAt(size_t place) {
    return std::span(sound_).subspan((first_ + place) % kMostFrames * kFrameSamples, kFrameSamples);
  }

  bool empty() const { return piece_ == pieces_.size(); }
  void Add(const Piece& piece);
  void Run();
  void Fill();
  bool Encode(int64_t now_us);
  void TakeSamples(Piece& piece, Encoded& frame);
  void TakePacket(const Piece& piece, Encoded& frame);
  void HandOver(int64_t now_us);
  void Settle(int64_t now_us);
  void WakeAgain(int64_t now_us);
  void Halt();

  event::Loop& loop_;
  audio::OpusEncoder encoder_;
  Sinks sinks_;
  const size_t window_;  // frames that may be encoded and not yet due, the one due now included
  const int64_t cushion_us_;
  event::Timer timer_;
  std::vector<int16_t> samples_;
  size_t next_ = 0;  // in samples_
  std::vector<char> packets_;
  size_t next_packet_ = 0;  // in packets_
  std::vector<Piece> pieces_;
  size_t piece_ = 0;      // the one being played
  bool encoded_ = false;  // the last frame was made here
  // Frames whose time has not come. The last `kept_` of them are not handed over.
  std::array<Encoded, kMostFrames> ring_;
  std::vector<int16_t> sound_;  // of the frames in the ring; empty: nobody asks for it
  size_t first_ = 0;
  size_t count_ = 0;
  size_t kept_ = 0;
  int64_t played_ = 0;   // samples of this speech that have come to their time
  int64_t told_ = 0;     // … as of the last progress
  uint64_t speech_ = 0;  // 0: not started
  bool running_ = false;
  bool starved_ = false;     // running, with nothing to play: the timer rests
  int64_t next_due_us_ = 0;  // of the next frame that is handed over
  uint32_t timestamp_ = 0;   // of the last one
  int64_t last_due_us_ = 0;  // 0: there was none
};

}  // namespace parley::agent
