#pragma once
#include <cstdint>
#include <memory>
#include <span>

namespace parley::audio {

struct VadFrame {
  // At the frame's end: a last sound that ended in its first half, where a codec's delay puts the
  // end of the frame before, does not make it longer.
  bool speech = false;
  float probability = 0;  // 0 to 1; a coarse figure where the detector knows only yes and no
  float level_dbov = -127;
};

// Tells speech from the rest, frame by frame. Belongs to one thread at a time; allocates nothing
// per frame. Decisions are raw: whoever asks smooths them (session::SpeechGate).
class Vad {
 public:
  virtual ~Vad() = default;
  // A frame of 10 or 20 ms (160 or 320 samples) at 16 kHz.
  virtual VadFrame Process(std::span<const int16_t> frame) = 0;
  // Forgets the stream so far.
  virtual void Reset() = 0;
};

struct WebrtcVadOptions {
  float min_level_dbov = -52;  // softer than this is never speech
  float above_noise_db = 6;    // speech stands this far above the steady noise
};
// WebRTC's detector (2 µs a frame), which alone takes noise, hum and tones for speech, behind a
// gate that asks for a level above the running noise floor and for the modulation that speech has
// and steady sounds have not.
std::unique_ptr<Vad> NewWebrtcVad(const WebrtcVadOptions& options = {});

}  // namespace parley::audio
