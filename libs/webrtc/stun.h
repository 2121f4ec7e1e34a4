#pragma once
// STUN binding messages (RFC 8489) as ICE (RFC 8445) uses them. No state, no allocation of ours.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "webrtc/bytes.h"
#include "webrtc/endpoint.h"

namespace parley::webrtc {

using TransactionId = std::array<uint8_t, 12>;

inline constexpr size_t kMaxStunBytes = 256;  // of what is written here

// A parsed message; borrows the bytes it came from.
struct StunMessage {
  enum class Kind { kBindingRequest, kBindingSuccess, kBindingError, kOther };
  Kind kind = Kind::kOther;
  TransactionId transaction{};
  std::string_view username;  // "receiver's ufrag:sender's ufrag"
  bool use_candidate = false;
  bool controlling = false;
  std::optional<Endpoint> mapped;  // of a success
  Bytes whole;
  size_t integrity_at = 0;  // offset of MESSAGE-INTEGRITY; 0 = it has none
};

// Is this the first byte of a STUN message rather than of DTLS or (S)RTP?
bool LooksLikeStun(Bytes packet);
// nullopt: malformed, or its FINGERPRINT is wrong.
std::optional<StunMessage> ParseStun(Bytes packet);
// Was the message made by somebody who knows `password`?
bool CheckIntegrity(const StunMessage& message, std::string_view password);

// Each returns how many bytes of `out` (at least kMaxStunBytes) it used.
size_t WriteBindingSuccess(const TransactionId& transaction, const Endpoint& from,
                           std::string_view password, std::span<uint8_t> out);
// To a STUN server: how does this socket look from outside? Anonymous.
size_t WriteAddressQuestion(const TransactionId& transaction, std::span<uint8_t> out);
// As the controlling side sends it. `username` has at most 128 bytes.
size_t WriteBindingRequest(const TransactionId& transaction, std::string_view username,
                           std::string_view password, bool use_candidate, std::span<uint8_t> out);

}  // namespace parley::webrtc
