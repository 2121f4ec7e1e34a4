// Access tokens from strangers: whatever comes, no crash, and nothing but a good signature passes.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "auth/token.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::auth;
  static const auto kRing = KeyRing::Of({{"APIhotel", "some other secret", "hotel", {}, false}},
                                        "a cluster key of thirty-two letters");
  if (Verify({reinterpret_cast<const char*>(data), size}, *kRing).ok()) std::abort();
  return 0;
}
