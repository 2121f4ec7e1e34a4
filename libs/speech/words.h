#pragma once
#include <cstdint>
#include <string>

namespace parley::speech {

// When a word is heard or spoken, from the start of the stream's audio.
struct WordTime {
  std::string word;
  int32_t start_ms = 0;
  int32_t end_ms = 0;
  float confidence = 0;  // 0 to 1; 0 = unknown
};

}  // namespace parley::speech
