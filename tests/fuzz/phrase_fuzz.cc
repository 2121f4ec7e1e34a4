// Recorded speech from disk and from other replicas: it is what was written, or an error.
#include <zlib.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "speech/phrase.h"

namespace {

// As phrase.cc: a checksum that is right lets the rest be looked at.
std::string Sealed(std::string_view body) {
  const auto crc =
      static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size()));
  char bytes[sizeof(crc)];
  std::memcpy(bytes, &crc, sizeof(crc));
  return "PLPH2" + std::string(bytes, sizeof(bytes)) + std::string(body);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  static_cast<void>(parley::speech::DecodePhrase(bytes).ok());
  const auto phrase = parley::speech::DecodePhrase(Sealed(bytes));
  if (!phrase.ok()) return 0;
  const auto again = parley::speech::DecodePhrase(parley::speech::EncodePhrase(*phrase));
  if (!again.ok() || again->samples != phrase->samples || again->opus != phrase->opus ||
      again->words.size() != phrase->words.size()) {
    std::abort();
  }
  return 0;
}
