#include "room_server/turn.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <fstream>

#include "base/status.h"

namespace parley::room_server {
namespace {

bool IsRelay(std::string_view url) { return url.starts_with("turn:") || url.starts_with("turns:"); }

std::string Base64(const uint8_t* bytes, size_t size) {
  std::string out(size * 4 / 3 + 8, '\0');
  out.resize(static_cast<size_t>(
      EVP_EncodeBlock(reinterpret_cast<uint8_t*>(out.data()), bytes, static_cast<int>(size))));
  return out;
}

}  // namespace

absl::StatusOr<TurnServers> TurnServers::Create(std::vector<std::string> urls,
                                                const std::string& secret_file,
                                                absl::Duration ttl) {
  TurnServers servers;
  for (const std::string& url : urls) {
    if (!IsRelay(url) && !url.starts_with("stun:")) {
      return InvalidArgument("turn.urls: \"{}\" begins with none of turn:, turns:, stun:", url);
    }
  }
  if (!secret_file.empty()) {
    std::ifstream file(secret_file);
    if (!std::getline(file, servers.secret_) || servers.secret_.empty()) {
      return NotFound("turn.secret_file: {} holds no secret", secret_file);
    }
  } else if (std::ranges::any_of(urls, IsRelay)) {
    return InvalidArgument("turn.urls names relays: turn.secret_file must hold their secret");
  }
  servers.urls_ = std::move(urls);
  servers.ttl_ = ttl;
  return servers;
}

void TurnServers::Fill(std::string_view identity, absl::Time now,
                       livekit::v1::ICEServer* out) const {
  for (const std::string& url : urls_) out->add_urls(url);
  if (secret_.empty()) return;
  out->set_username(fmt::format("{}:{}", absl::ToUnixSeconds(now + ttl_), identity));
  uint8_t mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha1(), secret_.data(), static_cast<int>(secret_.size()),
       reinterpret_cast<const uint8_t*>(out->username().data()), out->username().size(), mac,
       &size);
  out->set_credential(Base64(mac, size));
}

}  // namespace parley::room_server
