#pragma once
// Where the words of a sentence are in somebody's speech, from how somebody else says it.
#include <cstdint>
#include <span>
#include <vector>

#include "speech/words.h"

namespace parley::speech {

struct Speech {
  std::span<const int16_t> samples;  // mono
  int rate_hz = 0;                   // 8,000 to 48,000
};

// `reference` says a sentence and its words are known; `heard` is the beginning of the same
// sentence by another voice, which takes about `slower` times as long (0 = unknown). Returns when
// each word begins in `heard`, in ms; words that it does not reach are missing. Empty when there is
// too little sound to tell. Looks at the first 30 s.
//
// How: mel cepstra of both and their changes (25 ms windows, every 10 ms), aligned by dynamic time
// warping that goes neither three times as fast nor three times as slow, and whose end in the
// reference is open.
std::vector<int32_t> AlignWords(const Speech& reference, const std::vector<WordTime>& words,
                                const Speech& heard, double slower);

}  // namespace parley::speech
