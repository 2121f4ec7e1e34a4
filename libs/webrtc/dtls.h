#pragma once
// DTLS 1.2 (OpenSSL) over datagrams that somebody else carries, and the SRTP keys it agrees on
// (RFC 5764). A transport belongs to one thread.
#include <absl/status/statusor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "webrtc/bytes.h"

namespace parley::webrtc {

// A self-signed certificate (ECDSA P-256) and what both roles share. Thread-safe after Create.
class DtlsContext {
 public:
  //   Internal  OpenSSL refuses
  static absl::StatusOr<std::shared_ptr<DtlsContext>> Create();
  ~DtlsContext();
  // SHA-256 of the certificate as session descriptions write it: "AB:CD:…".
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  friend class DtlsTransport;
  struct Free {
    void operator()(void* context) const;
  };
  explicit DtlsContext(void* context) : context_(context) {}
  std::unique_ptr<void, Free> context_;
  std::string fingerprint_;
};

enum class SrtpProfile { kAeadAes128Gcm, kAes128CmSha1_80 };

struct SrtpKeys {
  SrtpProfile profile = SrtpProfile::kAeadAes128Gcm;
  std::string send;  // key and salt, as libsrtp wants them
  std::string receive;
};

class DtlsTransport {
 public:
  enum class Role { kServer, kClient };
  static constexpr size_t kMaxPlainBytes = 2048;  // of one record: no datagram holds more

  using Send = std::function<void(Bytes datagram)>;
  using Receive = std::function<void(Bytes plain)>;

  // `peer_fingerprint`: what the other side's certificate must have (SHA-256).
  DtlsTransport(std::shared_ptr<DtlsContext> context, Role role, std::string peer_fingerprint,
                Send send, Receive receive);
  ~DtlsTransport();

  // Begins the handshake (client).
  void Start();
  // Takes a datagram.
  //   Unauthenticated  the certificate is not the one announced
  //   Aborted          the other side closed, or broke the protocol: over
  absl::Status Take(Bytes datagram);
  // Sends again what was lost. At least every 50 ms until connected.
  void Tick();
  // False: not connected, or too large.
  bool Write(Bytes plain);
  bool connected() const { return connected_; }
  const SrtpKeys& keys() const { return keys_; }  // once connected

 private:
  struct Impl;
  absl::Status Handshake();
  absl::Status ReadAll();
  absl::Status Finish();

  const std::shared_ptr<DtlsContext> context_;
  const Role role_;
  const std::string peer_fingerprint_;
  const Send send_;
  const Receive receive_;
  std::unique_ptr<Impl> impl_;
  bool connected_ = false;
  SrtpKeys keys_;
};

}  // namespace parley::webrtc
