#pragma once
#include "api_server/api_server.h"
#include "http/server.h"

namespace parley::api_server {

// Accepts the WebSockets of LiveKit's client SDKs on /rtc/v1 and /rtc and carries them to the room
// server. `backend` must outlive the server.
void ServeSignalling(Backend& backend, http::Server& server);

}  // namespace parley::api_server
