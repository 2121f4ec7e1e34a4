// What models and callers of /v1 give to be spoken: however it is cut, no character is torn, and
// no sentence is longer than voices take.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "speech/sentences.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const size_t cut = 1 + data[0] % 32;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  parley::speech::SentenceSplitter splitter;
  std::vector<std::string> sentences;
  const auto keep = [&sentences](std::vector<std::string> more) {
    sentences.insert(sentences.end(), more.begin(), more.end());
  };
  for (size_t at = 0; at < text.size(); at += cut) keep(splitter.Push(text.substr(at, cut)));
  keep(splitter.Flush());
  if (splitter.buffered() != 0) std::abort();
  const bool utf8 = parley::IsValidUtf8(text);
  for (const std::string& sentence : sentences) {
    if (sentence.empty() || sentence.size() > parley::speech::kMaxSentenceBytes) std::abort();
    if (utf8 && !parley::IsValidUtf8(sentence)) std::abort();
    for (const char* language : {"", "de-DE"}) {
      const std::string spoken = parley::speech::SpokenText(sentence, language);
      if (utf8 && !parley::IsValidUtf8(spoken)) std::abort();
    }
  }
  return 0;
}
