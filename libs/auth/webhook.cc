#include "auth/webhook.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>

#include "base/status.h"

namespace parley::auth {
namespace {

constexpr absl::Duration kLife = absl::Minutes(5);

std::string HashOf(std::string_view body) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_Digest(body.data(), body.size(), digest.data(), &size, EVP_sha256(), nullptr);
  std::array<unsigned char, 64> text{};
  const int length = EVP_EncodeBlock(text.data(), digest.data(), static_cast<int>(size));
  return {reinterpret_cast<const char*>(text.data()), static_cast<size_t>(length)};
}

}  // namespace

std::string SignWebhook(std::string_view body, const ApiKey& key, const Clock& clock) {
  Claims claims;
  claims.sha256 = HashOf(body);
  return Sign(claims, key, kLife, clock);
}

absl::Status VerifyWebhook(std::string_view body, std::string_view authorization,
                           const KeyRing& ring, const Clock& clock) {
  PARLEY_ASSIGN_OR_RETURN(const Claims claims, Verify(authorization, ring, clock));
  const std::string hash = HashOf(body);
  if (claims.sha256.size() == hash.size() &&
      CRYPTO_memcmp(claims.sha256.data(), hash.data(), hash.size()) == 0) {
    return absl::OkStatus();
  }
  return WithReason(Unauthenticated("the token was not made for this body"), "BODY_CHANGED");
}

}  // namespace parley::auth
