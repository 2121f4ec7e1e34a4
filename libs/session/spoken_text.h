#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "session/types.h"

namespace parley::session {

// The text of one speech, beside its audio: which words have been heard at a point of playback.
// Segments (sentences) play in the order in which they were added; parts group them by the answer
// of the model they belong to.
class SpokenText {
 public:
  struct Segment {
    uint64_t number = 0;
    int part = 0;
    std::string text;
    std::vector<std::string> tokens;  // words as written
    std::vector<WordTime> words;      // as spoken; they need not be the same
    int64_t start_us = 0;             // in the speech's audio
    int64_t duration_us = 0;
    bool sent = false;
    bool done = false;   // no more audio comes
    bool grows = false;  // so does its text until then: its last word may not be whole
    size_t heard = 0;    // tokens
  };

  void Add(uint64_t number, int part, std::string text);
  // More of a segment's text, as it comes; false when there is no such segment.
  bool Append(uint64_t number, const std::string& text);
  // Audio for a segment; false when there is no such segment.
  bool OnAudio(uint64_t number, int64_t duration_us, const std::vector<WordTime>& words);
  bool OnDone(uint64_t number);
  // A segment that has no audio, and is to have none.
  void Drop(uint64_t number);
  // The words that have newly been heard at `position_us`: a word counts once half of it has been.
  std::string TakeHeard(int64_t position_us);
  // The rest, as if all had been heard.
  std::string TakeRest();

  std::string Heard(int part) const;
  std::string Full(int part) const;
  bool all_done() const;
  int64_t audio_us() const { return audio_us_; }
  std::vector<Segment>& segments() { return segments_; }
  const std::vector<Segment>& segments() const { return segments_; }

 private:
  Segment* Find(uint64_t number);
  std::vector<Segment> segments_;
  int64_t audio_us_ = 0;
};

}  // namespace parley::session
