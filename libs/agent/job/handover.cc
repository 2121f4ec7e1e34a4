// A conversation that is given to a successor, or frozen because it may have one.
#include <limits>
#include <utility>

#include "agent/job/conversation.h"

namespace parley::agent {

void Conversation::Pause() {
  if (std::exchange(paused_, true)) return;
  timer_.Stop();
  armed_us_ = std::numeric_limits<int64_t>::max();
  was_playing_ = playout_->running();
  playout_->Pause();
  UpdateBackground();
}

void Conversation::Resume() {
  hand_over_ = nullptr;
  hand_over_timer_.Stop();
  if (!std::exchange(paused_, false) || ended_) return;
  UpdateBackground();
  if (was_playing_) playout_->Resume();
  Drive();
}

void Conversation::HandOver(absl::Duration wait,
                            std::function<void(std::string checkpoint)> paused) {
  if (ended_ || hand_over_ != nullptr) return;
  hand_over_ = std::move(paused);
  if (paused_ || session_.at_rest()) return FinishHandOver();
  hand_over_timer_.StartOnce(wait, [this] {
    if (hand_over_ == nullptr) return;
    // What was heard of the answer stays in the history; what was not is asked for again.
    Handle(session::event::Interrupt{});
    if (hand_over_ != nullptr) FinishHandOver();
  });
}

void Conversation::FinishHandOver() {
  hand_over_timer_.Stop();
  const auto paused = std::exchange(hand_over_, nullptr);
  Pause();
  FlushRecording();
  paused(session_.Checkpoint());
}

}  // namespace parley::agent
