#pragma once
// Internal to `http`.
#include <cstddef>
#include <string>

#include "http/server.h"

namespace parley::http {

// Head and body, ready to send, behind `room` bytes that the library writes its framing into. Of a
// stream the head alone.
std::string Encode(const Response& response, size_t room, bool close, bool head_only);

}  // namespace parley::http
