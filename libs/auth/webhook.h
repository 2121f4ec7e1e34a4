#pragma once
// Signatures of webhooks, as LiveKit's receivers check them: the Authorization header is a token
// whose claim sha256 is the base64 SHA-256 of the body.
#include <absl/status/status.h>

#include <string>
#include <string_view>

#include "auth/token.h"

namespace parley::auth {

// Value of the Authorization header for `body`; valid for 5 minutes.
std::string SignWebhook(std::string_view body, const ApiKey& key,
                        const Clock& clock = Clock::Real());

// What a receiver does. Unauthenticated: as Verify(), or BODY_CHANGED.
absl::Status VerifyWebhook(std::string_view body, std::string_view authorization,
                           const KeyRing& ring, const Clock& clock = Clock::Real());

}  // namespace parley::auth
