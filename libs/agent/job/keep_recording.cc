// What is kept of a call: given to the agent server, which alone has a disk.
#include <algorithm>

#include "agent/job/conversation.h"
#include "base/status.h"

namespace parley::agent {
namespace {

constexpr absl::Duration kGiveEvery = absl::Seconds(1);
constexpr size_t kGiveBytes = 64 << 10;
constexpr size_t kMaxPiece = 256 << 10;  // well below what one message may hold
constexpr int kGivePackets = 50;

}  // namespace

absl::Status Conversation::StartRecording() {
  if (!config_.record && !config_.record_sound) return absl::OkStatus();
  if (config_.record_sound) {
    PARLEY_ASSIGN_OR_RETURN(sound_, CallSound::Create([this](std::string_view packet) {
                              recording_.mutable_recording()->add_sound(packet.data(),
                                                                        packet.size());
                              if (recording_.recording().sound_size() >= kGivePackets) {
                                GiveRecording();
                              }
                            }));
    sound_->Start(loop_.NowMicros());
  }
  recording_timer_.StartRepeating(kGiveEvery, [this] {
    if (sound_ != nullptr) sound_->Advance(loop_.NowMicros());
    GiveRecording();
  });
  return absl::OkStatus();
}

void Conversation::KeepLine(std::string_view line) {
  if (config_.on_recording) config_.on_recording(line);
  if (!config_.record || recorded_bytes_ > session::kMaxRecordingBytes) return;
  recorded_bytes_ += line.size();
  if (recorded_bytes_ > session::kMaxRecordingBytes) {
    return Warn("the session's recording is full and ends here", "");
  }
  while (!line.empty()) {
    std::string& waits = *recording_.mutable_recording()->mutable_session();
    const std::string_view piece = line.substr(0, kMaxPiece);
    line.remove_prefix(piece.size());
    waits += piece;
    if (waits.size() >= kGiveBytes) GiveRecording();
  }
}

void Conversation::GiveRecording() {
  if (!recording_.has_recording()) return;
  host_.send(recording_);
  recording_.Clear();
}

// Nothing is held back: somebody else may go on from here.
void Conversation::FlushRecording() {
  if (sound_ != nullptr) sound_->Advance(loop_.NowMicros(), true);
  GiveRecording();
}

void Conversation::EndRecording() {
  recording_timer_.Stop();
  FlushRecording();
  sound_.reset();
}

}  // namespace parley::agent
