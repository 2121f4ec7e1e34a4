#pragma once
#include <string>
#include <string_view>

#include "base/strings.h"

namespace parley::agent {

// Text that a message may carry, whatever bytes it was.
inline std::string ValidUtf8(std::string_view text) {
  std::string result(text);
  if (IsValidUtf8(result)) return result;
  for (char& c : result) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return result;
}

}  // namespace parley::agent
