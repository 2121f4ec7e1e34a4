// Any bytes as what a LiveKit worker sends, in both forms; and as the ids of jobs in it.
#include <cstdint>
#include <string>

#include "api_server/livekit/frames.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::api_server;  // NOLINT
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const bool text : {false, true}) {
    const auto message = ReadWorkerMessage({bytes, text});
    if (!message.ok()) continue;
    (void)Check(message->register_()).ok();
    (void)Check(message->availability()).ok();
    for (const std::string& id : message->migrate_job().job_ids()) (void)ReadWireId(id);
  }
  if (const auto wire = ReadWireId(bytes)) {
    PARLEY_CHECK(wire->attempt >= 1);
    const auto again = ReadWireId(WireId(wire->job_id, wire->attempt));
    PARLEY_CHECK(again && again->job_id == wire->job_id && again->attempt == wire->attempt);
  }
  return 0;
}
