#pragma once
// A small model of how finished words sound: is "how much is a single room" the end of what
// somebody wants to say, and "how much is a"? English. Trained by scripts/train-turn-model; figures
// are in docs/turn-detection.md.
#include <cstdint>
#include <string_view>

namespace parley::session {

// The probability that the speaker is done, from a transcript as recognisers write it (case and
// punctuation are ignored). Pure; some microseconds.
double EndOfTurn(std::string_view transcript);

// How long a silence to wait for, after words with that probability: from `min_us`, where they
// sound finished, to `max_us`, where they do not.
int64_t PatienceUs(double probability, int64_t min_us, int64_t max_us);

// Nothing but what listeners say while they listen: "mhm", "okay", "yeah right". With `goes_on` the
// last word may still become such a phrase: "okay got" … "it".
bool IsBackchannel(std::string_view transcript, bool goes_on = false);

}  // namespace parley::session
