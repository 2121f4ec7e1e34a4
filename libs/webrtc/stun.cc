#include "webrtc/stun.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace parley::webrtc {
namespace {

constexpr size_t kHeaderBytes = 20;
constexpr uint32_t kCookie = 0x2112A442;
constexpr uint32_t kFingerprintXor = 0x5354554E;
constexpr size_t kIntegrityBytes = 20;
constexpr size_t kMaxUsernameBytes = 128;
constexpr size_t kMaxMessageBytes = 1500;

constexpr uint16_t kBindingRequest = 0x0001;
constexpr uint16_t kBindingSuccess = 0x0101;
constexpr uint16_t kBindingError = 0x0111;

constexpr uint16_t kUsername = 0x0006;
constexpr uint16_t kMessageIntegrity = 0x0008;
constexpr uint16_t kXorMappedAddress = 0x0020;
constexpr uint16_t kPriority = 0x0024;
constexpr uint16_t kUseCandidate = 0x0025;
constexpr uint16_t kFingerprint = 0x8028;
constexpr uint16_t kIceControlling = 0x802A;

// Of a peer-reflexive candidate of the highest local preference.
constexpr uint32_t kReflexivePriority = 110u << 24 | 65535u << 8 | 255u;

size_t Padded(size_t length) { return (length + 3) & ~size_t{3}; }

uint32_t Fingerprint(const uint8_t* data, size_t size) {
  return static_cast<uint32_t>(crc32(crc32(0, nullptr, 0), data, static_cast<uInt>(size))) ^
         kFingerprintXor;
}

// The HMAC of the message up to `end`, as if it ended after MESSAGE-INTEGRITY.
void Integrity(Bytes whole, size_t end, std::string_view password, uint8_t* mac) {
  uint8_t copy[kMaxMessageBytes];
  std::memcpy(copy, whole.data(), end);
  Put16(copy + 2, static_cast<uint16_t>(end + 4 + kIntegrityBytes - kHeaderBytes));
  unsigned size = kIntegrityBytes;
  HMAC(EVP_sha1(), password.data(), static_cast<int>(password.size()), copy, end, mac, &size);
}

Endpoint ReadXorAddress(const uint8_t* value, size_t length, const uint8_t* message) {
  Endpoint endpoint;
  endpoint.port = static_cast<uint16_t>(Get16(value + 2) ^ (kCookie >> 16));
  const uint8_t* mask = message + 4;  // cookie and transaction follow each other
  if (length == 8) {
    endpoint = *Endpoint::Parse("0.0.0.0", endpoint.port);
    for (size_t i = 0; i < 4; ++i) endpoint.ip[12 + i] = value[4 + i] ^ mask[i];
  } else {
    for (size_t i = 0; i < 16; ++i) endpoint.ip[i] = value[4 + i] ^ mask[i];
  }
  return endpoint;
}

class Writer {
 public:
  Writer(std::span<uint8_t> out, uint16_t type, const TransactionId& transaction) : out_(out) {
    PARLEY_CHECK(out.size() >= kMaxStunBytes);
    Put16(out_.data(), type);
    Put32(out_.data() + 4, kCookie);
    std::ranges::copy(transaction, out_.begin() + 8);
  }
  uint8_t* Add(uint16_t type, size_t length) {
    uint8_t* at = out_.data() + size_;
    Put16(at, type);
    Put16(at + 2, static_cast<uint16_t>(length));
    std::memset(at + 4, 0, Padded(length));
    size_ += 4 + Padded(length);
    Put16(out_.data() + 2, static_cast<uint16_t>(size_ - kHeaderBytes));
    return at + 4;
  }
  size_t Finish(std::string_view password) {
    const size_t end = size_;
    uint8_t mac[kIntegrityBytes];
    Integrity({out_.data(), end}, end, password, mac);
    std::memcpy(Add(kMessageIntegrity, kIntegrityBytes), mac, kIntegrityBytes);
    const size_t before = size_;
    uint8_t* at = Add(kFingerprint, 4);
    Put32(at, Fingerprint(out_.data(), before));
    return size_;
  }

 private:
  std::span<uint8_t> out_;
  size_t size_ = kHeaderBytes;
};

bool ReadAttribute(uint16_t type, size_t at, size_t length, StunMessage* message) {
  const uint8_t* value = message->whole.data() + at + 4;
  switch (type) {
    case kUsername:
      message->username = Text({value, length});
      return true;
    case kMessageIntegrity:
      message->integrity_at = at;
      return length == kIntegrityBytes;
    case kUseCandidate:
      message->use_candidate = true;
      return true;
    case kIceControlling:
      message->controlling = true;
      return length == 8;
    case kXorMappedAddress:
      if (!(length == 8 && value[1] == 1) && !(length == 20 && value[1] == 2)) return false;
      message->mapped = ReadXorAddress(value, length, message->whole.data());
      return true;
    case kFingerprint:
      return length == 4 && Get32(value) == Fingerprint(message->whole.data(), at);
    default:
      return true;
  }
}

StunMessage::Kind KindOf(uint16_t type) {
  switch (type) {
    case kBindingRequest:
      return StunMessage::Kind::kBindingRequest;
    case kBindingSuccess:
      return StunMessage::Kind::kBindingSuccess;
    case kBindingError:
      return StunMessage::Kind::kBindingError;
    default:
      return StunMessage::Kind::kOther;
  }
}

}  // namespace

bool LooksLikeStun(Bytes packet) { return !packet.empty() && packet[0] < 4; }

std::optional<StunMessage> ParseStun(Bytes packet) {
  if (packet.size() < kHeaderBytes || packet.size() > kMaxMessageBytes || packet.size() % 4 != 0 ||
      packet[0] >= 0x40 || Get32(packet.data() + 4) != kCookie ||
      Get16(packet.data() + 2) != packet.size() - kHeaderBytes) {
    return std::nullopt;
  }
  StunMessage message;
  message.whole = packet;
  message.kind = KindOf(Get16(packet.data()));
  std::copy_n(packet.begin() + 8, message.transaction.size(), message.transaction.begin());
  for (size_t at = kHeaderBytes; at < packet.size();) {
    const uint16_t type = Get16(packet.data() + at);
    const size_t length = Get16(packet.data() + at + 2);
    if (at + 4 + Padded(length) > packet.size()) return std::nullopt;
    // After MESSAGE-INTEGRITY only FINGERPRINT counts: anybody may have added the rest.
    if ((message.integrity_at == 0 || type == kFingerprint) &&
        !ReadAttribute(type, at, length, &message)) {
      return std::nullopt;
    }
    at += 4 + Padded(length);
  }
  return message;
}

bool CheckIntegrity(const StunMessage& message, std::string_view password) {
  if (message.integrity_at == 0) return false;
  uint8_t mac[kIntegrityBytes];
  Integrity(message.whole, message.integrity_at, password, mac);
  return CRYPTO_memcmp(mac, message.whole.data() + message.integrity_at + 4, sizeof mac) == 0;
}

size_t WriteBindingSuccess(const TransactionId& transaction, const Endpoint& from,
                           std::string_view password, std::span<uint8_t> out) {
  Writer writer(out, kBindingSuccess, transaction);
  const bool v4 = from.is_v4();
  uint8_t* value = writer.Add(kXorMappedAddress, v4 ? 8 : 20);
  value[1] = v4 ? 1 : 2;
  Put16(value + 2, static_cast<uint16_t>(from.port ^ (kCookie >> 16)));
  const size_t first = v4 ? 12 : 0;
  for (size_t i = first; i < 16; ++i) value[4 + i - first] = from.ip[i] ^ out[4 + i - first];
  return writer.Finish(password);
}

size_t WriteAddressQuestion(const TransactionId& transaction, std::span<uint8_t> out) {
  const Writer writer(out, kBindingRequest, transaction);
  Put16(out.data() + 2, 0);  // no attributes
  return kHeaderBytes;
}

size_t WriteBindingRequest(const TransactionId& transaction, std::string_view username,
                           std::string_view password, bool use_candidate, std::span<uint8_t> out) {
  PARLEY_CHECK(username.size() <= kMaxUsernameBytes);
  Writer writer(out, kBindingRequest, transaction);
  std::ranges::copy(username, writer.Add(kUsername, username.size()));
  Put32(writer.Add(kPriority, 4), kReflexivePriority);
  std::ranges::copy(std::span(transaction).first(8), writer.Add(kIceControlling, 8));
  if (use_candidate) writer.Add(kUseCandidate, 0);
  return writer.Finish(password);
}

}  // namespace parley::webrtc
