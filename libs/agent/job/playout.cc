#include "agent/job/playout.h"

#include <algorithm>
#include <utility>

#include "audio/level.h"
#include "audio/pcm.h"

namespace parley::agent {
namespace {

constexpr int64_t kFrameUs = 20'000;
constexpr uint32_t kFrameTicks = 960;
// What is still handed over when more is encoded: how late the job may wake up.
constexpr int64_t kCushionFrames = 2;
constexpr size_t kWindowWithCushion = 5;
// A frame that is due within this is on its way when the server hears that it is cut.
constexpr int64_t kTooLateToCutUs = 10'000;

}  // namespace

Playout::Playout(event::Loop& loop, audio::OpusEncoder encoder, Sinks sinks, absl::Duration ahead)
    : loop_(loop),
      encoder_(std::move(encoder)),
      sinks_(std::move(sinks)),
      window_(1 + static_cast<size_t>(absl::ToInt64Microseconds(
                                          std::clamp(ahead, absl::ZeroDuration(), kMostAhead)) /
                                      kFrameUs)),
      cushion_us_(window_ < kWindowWithCushion ? 0 : kCushionFrames * kFrameUs),
      timer_(loop),
      sound_(sinks_.played ? kMostFrames * kFrameSamples : 0) {}

void Playout::Begin() {
  Clear();
  encoded_ = false;
}

void Playout::Append(std::span<const int16_t> samples) {
  if (samples.empty()) return;
  if (next_ > 0) {
    samples_.erase(samples_.begin(), samples_.begin() + static_cast<std::ptrdiff_t>(next_));
    next_ = 0;
  }
  samples_.insert(samples_.end(), samples.begin(), samples.end());
  if (empty() || pieces_.back().bytes > 0) return Add({.samples = samples.size()});
  pieces_.back().samples += samples.size();
  Add({});
}

void Playout::AppendPacket(std::string_view packet, uint32_t level) {
  if (packet.empty() || packet.size() > audio::OpusEncoder::kMaxPacketBytes) return;
  if (next_packet_ > packets_.size() / 2) {
    packets_.erase(packets_.begin(), packets_.begin() + static_cast<std::ptrdiff_t>(next_packet_));
    next_packet_ = 0;
  }
  packets_.insert(packets_.end(), packet.begin(), packet.end());
  Add({.bytes = packet.size(), .level = level});
}

// There is more to play; an empty piece says that of what is there already.
void Playout::Add(const Piece& piece) {
  if (piece_ > pieces_.size() / 2) {
    pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<std::ptrdiff_t>(piece_));
    piece_ = 0;
  }
  if (piece.samples + piece.bytes > 0) pieces_.push_back(piece);
  if (!running_) return;
  if (starved_) return Run();
  WakeAgain(loop_.NowMicros());  // sooner than to see the end of what there was
}

void Playout::Start(uint64_t speech) {
  speech_ = speech;
  Run();
}

void Playout::Pause() {
  if (!running_) return;
  Halt();
  if (played_ != told_) sinks_.progress(speech_, audio::SamplesToMicros(told_ = played_, kRateHz));
}

void Playout::Resume() {
  if (speech_ != 0 && !running_) Run();
}

void Playout::Clear() {
  Halt();
  samples_.clear();
  packets_.clear();
  pieces_.clear();
  next_ = next_packet_ = piece_ = 0;
  count_ = kept_ = 0;
  played_ = told_ = 0;
  speech_ = 0;
}

void Playout::TellProgress() {
  if (!running_) return;
  Settle(loop_.NowMicros());
  if (played_ != told_) sinks_.progress(speech_, audio::SamplesToMicros(told_ = played_, kRateHz));
}

void Playout::Halt() {
  if (!std::exchange(running_, false)) return;
  starved_ = false;
  timer_.Stop();
  const int64_t now_us = loop_.NowMicros();
  const int64_t gone_us = window_ > 1 ? now_us + kTooLateToCutUs : now_us;
  Settle(gone_us);
  if (count_ == kept_) return;
  kept_ = count_;
  // As if it had never been handed over.
  next_due_us_ = At(0).due_us;
  timestamp_ = At(0).timestamp - kFrameTicks;
  last_due_us_ = next_due_us_ - kFrameUs;
  sinks_.cut(gone_us);
}

void Playout::Run() {
  running_ = true;
  starved_ = false;
  next_due_us_ = std::max(next_due_us_, loop_.NowMicros());
  Fill();
}

// Hands over all that may go, and sees to it that this goes on.
void Playout::Fill() {
  const int64_t now_us = loop_.NowMicros();
  Settle(now_us);
  while (Encode(now_us)) {
  }
  HandOver(now_us);
  Settle(now_us);
  if (count_ == 0 && empty()) {
    // Said, or more is on its way: no reason to wake up until then.
    timer_.Stop();
    starved_ = true;
  } else {
    WakeAgain(now_us);
  }
  // Last: it may end the speech, and with it this playing.
  sinks_.progress(speech_, audio::SamplesToMicros(told_ = played_, kRateHz));
}

// One more frame, if there is one whose time is near.
bool Playout::Encode(int64_t now_us) {
  const int64_t due_us = next_due_us_ + static_cast<int64_t>(kept_) * kFrameUs;
  if (empty() || count_ == window_) return false;
  if (due_us > now_us + static_cast<int64_t>(window_ - 1) * kFrameUs) return false;
  Piece& piece = pieces_[piece_];
  if (piece.bytes > 0) {
    TakePacket(piece, At(count_));
  } else {
    // What makes it whole may be on its way, until its time comes.
    const bool last = piece_ + 1 == pieces_.size();
    if (last && piece.samples < kFrameSamples && due_us > now_us + cushion_us_) return false;
    TakeSamples(piece, At(count_));
  }
  if (piece.samples == 0) ++piece_;
  ++count_;
  ++kept_;
  return true;
}

void Playout::TakeSamples(Piece& piece, Encoded& frame) {
  if (!std::exchange(encoded_, true)) encoder_.Reset();  // what it last coded is long past
  std::array<int16_t, kFrameSamples> samples{};
  frame.samples = std::min(piece.samples, kFrameSamples);
  std::copy_n(samples_.begin() + static_cast<std::ptrdiff_t>(next_), frame.samples,
              samples.begin());
  next_ += frame.samples;
  piece.samples -= frame.samples;
  frame.level = audio::Level(samples);
  frame.bytes = encoder_.Encode(samples, frame.packet).value_or(0);
  if (!sound_.empty()) std::copy(samples.begin(), samples.end(), SoundAt(count_).begin());
}

void Playout::TakePacket(const Piece& piece, Encoded& frame) {
  encoded_ = false;
  if (!sound_.empty()) std::ranges::fill(SoundAt(count_), 0);
  std::copy_n(packets_.begin() + static_cast<std::ptrdiff_t>(next_packet_), piece.bytes,
              frame.packet.begin());
  next_packet_ += piece.bytes;
  frame.bytes = piece.bytes;
  frame.samples = kFrameSamples;
  frame.level = piece.level;
}

void Playout::HandOver(int64_t now_us) {
  while (kept_ > 0) {
    Encoded& frame = At(count_ - kept_);
    --kept_;
    frame.due_us = next_due_us_;
    // The media clock goes on while nothing is said.
    const int64_t steps =
        last_due_us_ == 0 ? 1 : (frame.due_us - last_due_us_ + kFrameUs / 2) / kFrameUs;
    timestamp_ += static_cast<uint32_t>(std::max<int64_t>(steps, 1)) * kFrameTicks;
    frame.timestamp = timestamp_;
    last_due_us_ = frame.due_us;
    next_due_us_ += kFrameUs;
    sinks_.frame({.packet = {reinterpret_cast<const char*>(frame.packet.data()), frame.bytes},
                  .timestamp = frame.timestamp,
                  .level = frame.level,
                  .due_us = frame.due_us > now_us ? frame.due_us : 0,
                  .more = kept_ > 0});
  }
}

// Counts what has come to its time by `now_us`.
void Playout::Settle(int64_t now_us) {
  while (count_ > kept_ && At(0).due_us <= now_us) {
    played_ += static_cast<int64_t>(At(0).samples);
    if (!sound_.empty()) sinks_.played(SoundAt(0), At(0).due_us);
    first_ = (first_ + 1) % kMostFrames;
    --count_;
  }
}

void Playout::WakeAgain(int64_t now_us) {
  // With nothing left, when the last one's time has come: that is to be told.
  const bool more = !empty();
  const int64_t at_us = next_due_us_ - (more ? cushion_us_ : kFrameUs);
  timer_.StartOnce(absl::Microseconds(std::max<int64_t>(at_us - now_us, 0)), [this] { Fill(); });
}

}  // namespace parley::agent
