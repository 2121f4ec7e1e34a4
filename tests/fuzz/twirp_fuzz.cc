// Bodies of LiveKit's server API from strangers, in both forms: no crash, and what is read can be
// written and read again.
#include <parley/livekit/v1/server.pb.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "api_server/livekit_convert.h"
#include "api_server/twirp.h"
#include "base/check.h"

namespace {

using namespace parley::api_server;  // NOLINT

template <typename Message>
std::optional<Message> Try(std::string_view body) {
  std::optional<Message> last;
  for (const twirp::Form form : {twirp::Form::kProtobuf, twirp::Form::kJson}) {
    Message message;
    if (!twirp::Read(form, body, &message).ok()) continue;
    Message again;
    PARLEY_CHECK(twirp::Read(twirp::Form::kProtobuf, message.SerializeAsString(), &again).ok());
    PARLEY_CHECK(twirp::Write(twirp::Form::kJson, message).status == 200);
    last = std::move(message);
  }
  return last;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  if (const auto room = Try<lk::CreateRoomRequest>(body)) {
    for (const auto& agent : room->agents()) (void)FromLiveKit(agent);
  }
  if (const auto wish = Try<lk::CreateAgentDispatchRequest>(body)) (void)FromLiveKit(*wish);
  if (const auto change = Try<lk::UpdateParticipantRequest>(body)) {
    (void)FromLiveKit(change->permission());
  }
  (void)Try<lk::SendDataRequest>(body);
  (void)Try<lk::MuteRoomTrackRequest>(body);
  (void)Try<lk::ListAgentDispatchRequest>(body);
  return 0;
}
