#pragma once
// The person's voice on its way in: decoded to 16 kHz, judged frame by frame, and fed to the
// recogniser when asked.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "audio/opus.h"
#include "audio/resample.h"
#include "audio/silero.h"
#include "audio/vad.h"

namespace parley::agent {

// Loop thread only. Allocates nothing per frame.
class Listener {
 public:
  static constexpr uint32_t kLevelUnknown = 127;

  struct Sinks {
    // Each 20 ms; `quiet_us`: the speech in it was over so long before its end.
    std::function<void(bool speech, int64_t quiet_us)> voice;
    std::function<void(std::string_view pcm16)> recogniser;     // 16 kHz, while feeding
    std::function<void(std::span<const int16_t> frame)> heard;  // 16 kHz, each 20 ms; may be empty
  };
  static absl::StatusOr<std::unique_ptr<Listener>> Create(Sinks sinks,
                                                          std::unique_ptr<audio::Vad> vad);

  // `level`: how loud the sender says it is, -dBov; 127: it does not say. What has been softer than
  // speech ever is for more than 600 ms, and is not fed, is kept, not decoded: the last of it is
  // once something louder follows, and every 5 s, to see whether the sender says the truth.
  void OnOpus(std::string_view packet, uint32_t timestamp, uint32_t level = kLevelUnknown);
  // 48 kHz mono PCM16.
  void OnPcm(std::string_view bytes);
  // Feeds the recogniser from `preroll` ago on (at most a second).
  void Feed(absl::Duration preroll);
  // Gives the last piece and feeds no more.
  void StopFeeding();
  // Somebody else is heard from now on.
  void Reset();

 private:
  Listener(Sinks sinks, std::unique_ptr<audio::Vad> vad, audio::OpusDecoder decoder,
           audio::Resampler resampler);
  bool Softer(uint32_t level);
  void Keep(std::string_view packet, uint32_t timestamp);
  void DecodeKept();
  void Decode(std::string_view packet, uint32_t timestamp);
  void ConcealUntil(uint32_t timestamp, std::string_view next);
  void Take(std::span<const int16_t> samples);
  void OnFrame();
  int64_t QuietUs() const;
  void GiveFed();

  Sinks sinks_;
  audio::OpusDecoder decoder_;
  audio::Resampler resampler_;
  std::unique_ptr<audio::Vad> vad_;
  std::vector<int16_t> decoded_;
  std::vector<int16_t> wide_;    // PCM that came in at 48 kHz …
  std::vector<int16_t> narrow_;  // … and at 16
  std::vector<int16_t> frame_;   // the frame being filled
  std::vector<int16_t> ring_;    // the last second
  size_t ring_next_ = 0;
  size_t ring_filled_ = 0;
  std::vector<int16_t> fed_;  // waits to be sent in larger pieces
  bool feeding_ = false;
  int64_t codec_delay_us_ = 0;
  bool has_timestamp_ = false;
  uint32_t next_timestamp_ = 0;

  // What was not decoded: the latest of it.
  struct Kept {
    std::string packet;
    uint32_t timestamp = 0;
  };
  static constexpr size_t kMaxKept = 5;
  std::array<Kept, kMaxKept> kept_;
  size_t kept_first_ = 0;
  size_t kept_count_ = 0;
  int soft_frames_ = 0;       // since the last louder one
  bool level_known_ = false;  // the sender says levels …
  bool level_false_ = false;  // … that are not true
  float loudest_dbov_ = 0;    // of what was decoded of late
};

// The neural detector of this program and of the jobs that it forks from now on; null: there is
// none. Set before there are threads.
void UseVadModel(std::shared_ptr<const audio::SileroModel> model);
const std::shared_ptr<const audio::SileroModel>& VadModel();

}  // namespace parley::agent
