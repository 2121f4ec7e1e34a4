#pragma once
// A recorded phrase and how it is written to disk and lent to other replicas.
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "speech/words.h"

namespace parley::speech {

struct Phrase {
  int sample_rate_hz = 0;
  std::vector<int16_t> samples;   // mono
  std::vector<WordTime> words;    // from the start of the samples
  std::vector<std::string> opus;  // the same as packets of 20 ms at 48 kHz; may be empty
  int64_t made_unix_ms = 0;
};

// Longer phrases are not recorded: 30 s at 48 kHz.
inline constexpr size_t kMaxPhraseBytes = 3 << 20;

std::string EncodePhrase(const Phrase& phrase);
// InvalidArgument: not what EncodePhrase wrote, or damaged since (there is a checksum).
absl::StatusOr<Phrase> DecodePhrase(std::string_view bytes);

}  // namespace parley::speech
