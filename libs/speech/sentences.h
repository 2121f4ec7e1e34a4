#pragma once
// From a model's text to what a voice can speak: sentences, without markdown.
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace parley::speech {

inline constexpr size_t kMaxSentenceBytes = 400;

// Cuts a stream of text pieces into sentences as soon as each is certain. A sentence ends at . ! ?
// … followed by space, at their full-width forms, at a line break, and, where nothing else ends it,
// at a clause or word border before kMaxSentenceBytes. Abbreviations (Dr., e.g.), initials, numbers
// (3.5, 1.) and ellipses inside a sentence do not end it. Code blocks (```) are dropped. Never cuts
// inside a UTF-8 character. Not thread-safe.
class SentenceSplitter {
 public:
  // Returns the sentences that `piece` completed, trimmed, none empty.
  std::vector<std::string> Push(std::string_view piece);
  // Returns the rest, as if the text ended here, and starts afresh.
  std::vector<std::string> Flush();
  // Forgets what is kept.
  void Clear();
  size_t buffered() const { return buffer_.size(); }

 private:
  void Take(std::vector<std::string>& out, bool end_of_text);

  std::string buffer_;
  bool in_code_ = false;
};

// Takes markdown and symbols that voices stumble over out of one sentence: emphasis, headings, list
// marks, links (keeps their text), inline code marks, images (keeps the description), tables' bars,
// emoji, bare URLs (keeps the host). Writes €, £, $, %, & and ° as English words where `language`
// is English or empty. Collapses white space. May return "".
std::string SpokenText(std::string_view sentence, std::string_view language = {});

}  // namespace parley::speech
