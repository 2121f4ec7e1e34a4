#pragma once
#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <vector>

#include "audio/opus.h"
#include "audio/resample.h"
#include "parley/speech/v1/speech.pb.h"
#include "speech/phrase.h"
#include "speech/tts.h"

namespace parley {

// Brings an engine's audio to the rate and the encoding that were asked for, in messages of 20 to
// 400 ms: the first of a segment as short as may be, the later ones the longer the further the
// engine is ahead of the listener (Opus: one packet of 20 ms each). Belongs to one thread at a
// time.
class AudioPacker {
 public:
  // InvalidArgument: the rate or the encoding.
  // `ready_opus`: PCM16 but for speech that is kept as Opus.
  static absl::StatusOr<AudioPacker> Create(speech::v1::AudioEncoding encoding, int rate_hz,
                                            int engine_rate_hz, bool ready_opus = false);

  // The messages that are full. `words` are timed from the start of their sentence.
  std::vector<speech::v1::SynthesizedAudio> Add(std::span<const int16_t> samples,
                                                const std::vector<speech::WordTime>& words);
  // A whole sentence that was made before. Opus that is kept with it is not made again.
  std::vector<speech::v1::SynthesizedAudio> AddPhrase(const speech::Phrase& phrase);
  // A sentence of the segment is over: the next one's words count from here.
  void EndSentence() { sentence_start_ms_ = MsSoFar(); }
  // The rest of the segment; the next one starts afresh.
  std::vector<speech::v1::SynthesizedAudio> EndSegment();
  int MsSoFar() const;  // of the segment

 private:
  AudioPacker(audio::Resampler resampler, std::optional<audio::OpusEncoder> encoder, int rate_hz,
              int engine_rate_hz, bool ready_opus)
      : resampler_(std::move(resampler)),
        encoder_(std::move(encoder)),
        rate_hz_(rate_hz),
        engine_rate_hz_(engine_rate_hz),
        ready_opus_(ready_opus) {}
  void AddWords(const std::vector<speech::WordTime>& words);
  std::vector<speech::v1::SynthesizedAudio> AddReady(const speech::Phrase& phrase);
  size_t Enough() const;  // samples
  void Take(size_t samples, std::vector<speech::v1::SynthesizedAudio>& out);
  void Emit(std::string data, std::vector<speech::v1::SynthesizedAudio>& out);
  void Emit(speech::v1::SynthesizedAudio message, std::vector<speech::v1::SynthesizedAudio>& out);

  audio::Resampler resampler_;
  std::optional<audio::OpusEncoder> encoder_;
  int rate_hz_;
  int engine_rate_hz_;
  bool ready_opus_;
  std::vector<int16_t> pending_;
  std::vector<speech::WordTime> words_;
  size_t total_samples_ = 0;  // of the segment, `pending_` included
  bool sent_ = false;         // something of the segment
  int64_t first_us_ = 0;      // when
  int sentence_start_ms_ = 0;
};

}  // namespace parley
