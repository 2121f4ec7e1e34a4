#include "session/spoken_text.h"

#include <algorithm>
#include <utility>

#include "session/text.h"

namespace parley::session {
namespace {

// What a character takes to say, until the engine has told more: about 15 a second.
constexpr int64_t kCharacterUs = 65'000;

// The middle of token `index` in the segment's audio.
int64_t MiddleUs(const SpokenText::Segment& segment, size_t index) {
  const bool same_words = segment.words.size() == segment.tokens.size();
  if (same_words || (!segment.done && index < segment.words.size())) {
    const WordTime& word = segment.words[index];
    return (word.start_us + word.end_us) / 2;
  }
  // The engine says other words than were written (numbers, signs), or none: share the time out by
  // length.
  int64_t before = 0;
  int64_t total = 0;
  for (size_t i = 0; i < segment.tokens.size(); ++i) {
    const auto length = static_cast<int64_t>(segment.tokens[i].size()) + 1;
    if (i < index) before += 2 * length;
    if (i == index) before += length;
    total += 2 * length;
  }
  const int64_t duration_us = segment.done ? segment.duration_us : total / 2 * kCharacterUs;
  return total == 0 ? 0 : duration_us * before / total;
}

void AppendToken(std::string& text, const std::string& token) {
  if (!text.empty()) text += ' ';
  text += token;
}

}  // namespace

void SpokenText::Add(uint64_t number, int part, std::string text) {
  Segment segment{.number = number, .part = part, .tokens = Words(text)};
  segment.text = std::move(text);
  segments_.push_back(std::move(segment));
}

bool SpokenText::Append(uint64_t number, const std::string& text) {
  Segment* segment = Find(number);
  if (segment == nullptr) return false;
  segment->grows = true;
  segment->text += text;
  segment->tokens = Words(segment->text);
  return true;
}

bool SpokenText::OnAudio(uint64_t number, int64_t duration_us, const std::vector<WordTime>& words) {
  Segment* segment = Find(number);
  if (segment == nullptr) return false;
  if (segment->duration_us == 0) segment->start_us = audio_us_;
  segment->duration_us += duration_us;
  segment->words.insert(segment->words.end(), words.begin(), words.end());
  audio_us_ += duration_us;
  return true;
}

bool SpokenText::OnDone(uint64_t number) {
  Segment* segment = Find(number);
  if (segment == nullptr) return false;
  segment->done = true;
  return true;
}

void SpokenText::Drop(uint64_t number) {
  std::erase_if(segments_, [number](const Segment& segment) {
    return segment.number == number && segment.duration_us == 0;
  });
}

std::string SpokenText::TakeHeard(int64_t position_us) {
  std::string delta;
  for (Segment& segment : segments_) {
    if (segment.duration_us == 0) continue;
    const size_t whole =
        segment.tokens.size() - (segment.grows && !segment.done && !segment.tokens.empty() ? 1 : 0);
    while (segment.heard < whole &&
           segment.start_us + MiddleUs(segment, segment.heard) <= position_us) {
      AppendToken(delta, segment.tokens[segment.heard++]);
    }
  }
  return delta;
}

std::string SpokenText::TakeRest() {
  std::string delta;
  for (Segment& segment : segments_) {
    while (segment.heard < segment.tokens.size())
      AppendToken(delta, segment.tokens[segment.heard++]);
  }
  return delta;
}

std::string SpokenText::Heard(int part) const {
  std::string text;
  for (const Segment& segment : segments_) {
    if (segment.part != part) continue;
    for (size_t i = 0; i < segment.heard; ++i) AppendToken(text, segment.tokens[i]);
  }
  return text;
}

std::string SpokenText::Full(int part) const {
  std::string text;
  for (const Segment& segment : segments_) {
    if (segment.part == part) text = JoinText(text, segment.text);
  }
  return text;
}

bool SpokenText::all_done() const {
  return std::all_of(segments_.begin(), segments_.end(), [](const Segment& s) { return s.done; });
}

SpokenText::Segment* SpokenText::Find(uint64_t number) {
  const auto found = std::find_if(segments_.begin(), segments_.end(),
                                  [number](const Segment& s) { return s.number == number; });
  return found == segments_.end() ? nullptr : &*found;
}

}  // namespace parley::session
