// Documents of speech synthesis markup: pieces within their bounds, or an error that says why.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/status.h"
#include "tts_gateway/ssml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto pieces = parley::ParseSsml(bytes);
  if (!pieces.ok()) {
    if (parley::Message(pieces.status()).size() < 10) std::abort();
    return 0;
  }
  if (!parley::IsSsml(bytes) && bytes.find("<speak") == std::string_view::npos) std::abort();
  absl::Duration silence;
  for (const parley::SsmlPiece& piece : *pieces) {
    if (piece.text.empty() && piece.pause <= absl::ZeroDuration()) std::abort();
    if (!(piece.rate > 0) || !(piece.pitch > 0) || piece.rate > 8 || piece.pitch > 8) std::abort();
    silence += piece.pause;
  }
  if (silence > parley::kMaxSsmlSilence) std::abort();
  return 0;
}
