#include "base/ids.h"

#include <sys/random.h>

#include <cstdint>
#include <vector>

#include "base/check.h"

namespace parley {
namespace {

std::vector<uint8_t> RandomBytes(size_t count) {
  std::vector<uint8_t> bytes(count);
  size_t have = 0;
  while (have < count) {
    const ssize_t got = getrandom(bytes.data() + have, count - have, 0);
    PARLEY_CHECK(got > 0 || errno == EINTR);
    if (got > 0) have += static_cast<size_t>(got);
  }
  return bytes;
}

}  // namespace

std::string RandomBase62(size_t length) {
  static constexpr char kAlphabet[] =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string text;
  while (text.size() < length) {
    for (const uint8_t byte : RandomBytes(length + 8)) {
      if (byte >= 248) continue;  // 4 * 62: keeps the characters equally likely
      text += kAlphabet[byte % 62];
      if (text.size() == length) break;
    }
  }
  return text;
}

std::string NewId(std::string_view prefix, std::string_view tag) {
  std::string id(prefix);
  id += tag;
  id += RandomBase62(12);
  return id;
}

std::string RandomHex(size_t bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : RandomBytes(bytes)) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace parley
