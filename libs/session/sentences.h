#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace parley::session {

// Cuts text that comes in pieces into sentences to speak, as early as it can. Marks of markdown,
// which nobody wants to hear, are left out.
class SentenceSplitter {
 public:
  static constexpr size_t kMaxBytes = 400;  // a longer sentence is cut at a comma or a space

  // Sentences that are complete now.
  std::vector<std::string> Add(std::string_view text);
  // What is left.
  std::vector<std::string> Finish();

 private:
  size_t End() const;  // of the first sentence in `text_`; 0: not complete yet
  void TakeUpTo(size_t end, std::vector<std::string>& out);
  std::string text_;
};

}  // namespace parley::session
