#include "agent/console/sound.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "audio/level.h"
#include "audio/wav.h"
#include "base/status.h"

namespace parley::agent {
namespace {

constexpr int kRateHz = 48'000;
constexpr size_t kFrameBytes = Sound::kFrameSamples * sizeof(int16_t);
constexpr int kPipeBytes = 8192;                         // 85 ms
constexpr size_t kMaxAgentSamples = kRateHz / 2;         // the job paces itself: more is a stall's
constexpr size_t kMaxRecorded = size_t{3600} * kRateHz;  // an hour

std::vector<std::string> Alsa(const char* program, const std::string& device) {
  return {program, "-q", "-D", device, "-t", "raw", "-f", "S16_LE", "-r", "48000", "-c", "1"};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sound>> Sound::Open(const Options& options) {
  std::unique_ptr<Sound> sound(new Sound());
  sound->record_ = options.record;
  if (!options.microphone.empty()) {
    PARLEY_ASSIGN_OR_RETURN(
        sound->microphone_,
        Child::Start(Alsa("arecord", options.microphone), {.output = true, .bytes = kPipeBytes}));
  }
  if (!options.loudspeaker.empty()) {
    PARLEY_ASSIGN_OR_RETURN(
        sound->loudspeaker_,
        Child::Start(Alsa("aplay", options.loudspeaker), {.input = true, .bytes = kPipeBytes}));
  }
  return sound;
}

void Sound::Speak(std::vector<int16_t> samples) {
  speech_ = std::move(samples);
  spoken_at_ = 0;
}

void Sound::Play(std::span<const int16_t> samples) {
  agent_.insert(agent_.end(), samples.begin(), samples.end());
  const size_t over = agent_.size() - std::min(agent_.size(), kMaxAgentSamples);
  agent_.erase(agent_.begin(), agent_.begin() + static_cast<std::ptrdiff_t>(over));
}

absl::Status Sound::Tick(Frame& person) {
  person.fill(0);
  PARLEY_RETURN_IF_ERROR(ReadMicrophone(person));
  if (speaking()) {
    const size_t count = std::min(kFrameSamples, speech_.size() - spoken_at_);
    std::copy_n(speech_.begin() + static_cast<std::ptrdiff_t>(spoken_at_), count, person.begin());
    spoken_at_ += count;
  }
  Frame agent{};
  const size_t count = std::min(kFrameSamples, agent_.size());
  const auto end = agent_.begin() + static_cast<std::ptrdiff_t>(count);
  std::copy(agent_.begin(), end, agent.begin());
  agent_.erase(agent_.begin(), end);
  person_dbov_ = audio::LevelDbov(person);
  agent_dbov_ = audio::LevelDbov(agent);
  if (record_ && person_side_.size() < kMaxRecorded) {
    person_side_.insert(person_side_.end(), person.begin(), person.end());
    agent_side_.insert(agent_side_.end(), agent.begin(), agent.end());
  }
  return PlayFrame(agent);
}

absl::Status Sound::ReadMicrophone(Frame& frame) {
  if (microphone_ == nullptr) return absl::OkStatus();
  char piece[kFrameBytes];
  while (heard_.size() < kFrameBytes) {
    const ssize_t got = read(microphone_->output(), piece, kFrameBytes - heard_.size());
    if (got == 0) {
      return Unavailable(
          "the microphone is gone (arecord ended); --microphone names another device");
    }
    if (got < 0) break;  // a quiet moment instead of a late frame
    heard_.append(piece, static_cast<size_t>(got));
  }
  if (heard_.size() < kFrameBytes) return absl::OkStatus();
  std::memcpy(frame.data(), heard_.data(), kFrameBytes);
  heard_.clear();
  return absl::OkStatus();
}

absl::Status Sound::PlayFrame(const Frame& frame) {
  if (loudspeaker_ == nullptr) return absl::OkStatus();
  // What a stalled device could not take is dropped, but never half a sample.
  if (unplayed_.size() < kFrameBytes) {
    unplayed_.append(reinterpret_cast<const char*>(frame.data()), kFrameBytes);
  }
  const ssize_t put = write(loudspeaker_->input(), unplayed_.data(), unplayed_.size());
  if (put > 0) unplayed_.erase(0, static_cast<size_t>(put));
  if (put >= 0 || errno == EAGAIN) return absl::OkStatus();
  return Unavailable("the loudspeaker is gone (aplay ended); --loudspeaker names another device");
}

absl::Status Sound::Save(const std::string& path) const {
  return audio::WriteStereoWav(path, kRateHz, person_side_, agent_side_);
}

}  // namespace parley::agent
