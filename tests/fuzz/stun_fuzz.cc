// Any bytes as a STUN message: what is read lies inside them, and none is genuine without the
// password.
#include <cstdint>

#include "base/check.h"
#include "webrtc/stun.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::webrtc;  // NOLINT
  const auto message = ParseStun({data, size});
  if (!message) return 0;
  PARLEY_CHECK(message->username.empty() ||
               (message->username.data() >= reinterpret_cast<const char*>(data) &&
                message->username.size() <= size));
  PARLEY_CHECK(!CheckIntegrity(*message, "a password that no input knows"));
  if (message->mapped) PARLEY_CHECK(!message->mapped->Name().empty());
  return 0;
}
