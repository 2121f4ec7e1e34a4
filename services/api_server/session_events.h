#pragma once
#include <memory>

#include "api_server/api_server.h"
#include "auth/token.h"
#include "http/body_stream.h"

namespace parley::api_server {

// One session as server-sent events, for whoever shows it: first what is known of it, then what
// happens, until it has ended. Each is one JSON object with a `type`:
//   session     the session, as GET /api/sessions/{id} answers it
//   job         an event of its dispatch, as /api/events has it; those of the past first
//   agent       {identity, state}: lk.agent.state of an agent in the room; "" when it left
//   transcript  {identity, segmentId, text, final}: a segment as far as it is known
//   turn        where a turn's time went, in milliseconds (parley.job.v1.TurnReport)
//   stalled     a stage keeps the conversation waiting
// The room is watched by a hidden participant that receives no media and keeps no room open.
// `caller` may see the room (video.roomAdmin); `bearer` is its token. Blocks up to 5 s a service.
absl::Status WatchSession(Backend& backend, const auth::Claims& caller, const std::string& bearer,
                          const dispatch::v1::Session& session,
                          const std::shared_ptr<http::BodyStream>& body);

}  // namespace parley::api_server
