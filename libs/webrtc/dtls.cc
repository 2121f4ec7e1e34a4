#include "webrtc/dtls.h"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/status.h"

namespace parley::webrtc {
namespace {

constexpr int kMtu = 1200;
constexpr unsigned kFirstRetryUs = 60'000;  // OpenSSL's own is a second: a second on every loss
constexpr unsigned kLastRetryUs = 2'000'000;
constexpr int kCertificateDays = 365;
constexpr auto kProfiles = "SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80";
constexpr auto kExporterLabel = "EXTRACTOR-dtls_srtp";
constexpr size_t kKeyBytes = 16;

std::string FingerprintOf(X509* certificate) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  PARLEY_CHECK(X509_digest(certificate, EVP_sha256(), digest, &size) == 1);
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    if (i > 0) text += ':';
    text += fmt::format("{:02X}", digest[i]);
  }
  return text;
}

X509* MakeCertificate(EVP_PKEY* key) {
  X509* certificate = X509_new();
  if (certificate == nullptr) return nullptr;
  uint8_t serial[8];
  RAND_bytes(serial, sizeof serial);
  BIGNUM* number = BN_bin2bn(serial, sizeof serial, nullptr);
  BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
  BN_free(number);
  X509_set_version(certificate, 2);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -24 * 3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), kCertificateDays * 24L * 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const uint8_t*>("parley"),
                             -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  if (X509_sign(certificate, key, EVP_sha256()) == 0) {
    X509_free(certificate);
    return nullptr;
  }
  return certificate;
}

// The other side's certificate is checked against its fingerprint, once the handshake is through.
int AcceptAny(int, X509_STORE_CTX*) { return 1; }

unsigned NextRetry(SSL*, unsigned before_us) {
  return before_us == 0 ? kFirstRetryUs : std::min(before_us * 2, kLastRetryUs);
}

// A BIO that keeps the borders of datagrams.
struct Wire {
  Bytes arriving;
  const DtlsTransport::Send* send = nullptr;
};

int WireRead(BIO* bio, char* out, int size) {
  auto* wire = static_cast<Wire*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (wire->arriving.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const size_t copied = std::min(wire->arriving.size(), static_cast<size_t>(size));
  std::memcpy(out, wire->arriving.data(), copied);
  wire->arriving = {};
  return static_cast<int>(copied);
}

int WireWrite(BIO* bio, const char* data, int size) {
  const auto* wire = static_cast<Wire*>(BIO_get_data(bio));
  (*wire->send)({reinterpret_cast<const uint8_t*>(data), static_cast<size_t>(size)});
  return size;
}

long WireControl(BIO*, int command, long, void*) {  // NOLINT(google-runtime-int): OpenSSL's type
  switch (command) {
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT:
      return 1;
    case BIO_CTRL_DGRAM_QUERY_MTU:
    case BIO_CTRL_DGRAM_GET_FALLBACK_MTU:
      return kMtu;
    default:
      return 0;
  }
}

BIO_METHOD* WireMethod() {
  static BIO_METHOD* const kMethod = [] {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "datagrams");
    PARLEY_CHECK(method != nullptr);
    BIO_meth_set_read(method, WireRead);
    BIO_meth_set_write(method, WireWrite);
    BIO_meth_set_ctrl(method, WireControl);
    return method;
  }();
  return kMethod;
}

}  // namespace

struct DtlsTransport::Impl {
  SSL* ssl = nullptr;
  Wire wire;
  bool begun = false;
  int calls = 0;  // of OpenSSL under way: what it reads may be answered at once
  std::array<uint8_t, kMaxPlainBytes> plain{};

  // Around each call of OpenSSL. Once connected it has its buffers (33 KiB) only so long, which is
  // seldom: data channels alone are carried. SSL_MODE_RELEASE_BUFFERS does nothing for DTLS, and
  // what it writes it writes into no buffer when there is none.
  class Call {
   public:
    explicit Call(Impl& impl) : impl_(impl) {
      if (impl_.calls++ == 0) PARLEY_CHECK(SSL_alloc_buffers(impl_.ssl) == 1);
    }
    ~Call() {
      if (--impl_.calls == 0 && SSL_is_init_finished(impl_.ssl)) SSL_free_buffers(impl_.ssl);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    Impl& impl_;
  };
};

void DtlsContext::Free::operator()(void* context) const {
  SSL_CTX_free(static_cast<SSL_CTX*>(context));
}

DtlsContext::~DtlsContext() = default;

absl::StatusOr<std::shared_ptr<DtlsContext>> DtlsContext::Create() {
  SSL_CTX* ssl = SSL_CTX_new(DTLS_method());
  if (ssl == nullptr) return Internal("OpenSSL has no DTLS");
  std::shared_ptr<DtlsContext> context(new DtlsContext(ssl));
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = key == nullptr ? nullptr : MakeCertificate(key);
  const bool taken = certificate != nullptr && SSL_CTX_use_certificate(ssl, certificate) == 1 &&
                     SSL_CTX_use_PrivateKey(ssl, key) == 1;
  if (taken) context->fingerprint_ = FingerprintOf(certificate);
  X509_free(certificate);
  EVP_PKEY_free(key);
  if (!taken) return Internal("no certificate for DTLS could be made");
  SSL_CTX_set_min_proto_version(ssl, DTLS1_2_VERSION);
  SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, AcceptAny);
  SSL_CTX_set_options(ssl, SSL_OP_NO_QUERY_MTU | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  if (SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1 ||
      SSL_CTX_set_tlsext_use_srtp(ssl, kProfiles) != 0) {
    return Internal("OpenSSL lacks a cipher that WebRTC needs");
  }
  return context;
}

DtlsTransport::DtlsTransport(std::shared_ptr<DtlsContext> context, Role role,
                             std::string peer_fingerprint, Send send, Receive receive)
    : context_(std::move(context)),
      role_(role),
      peer_fingerprint_(std::move(peer_fingerprint)),
      send_(std::move(send)),
      receive_(std::move(receive)),
      impl_(std::make_unique<Impl>()) {
  impl_->ssl = SSL_new(static_cast<SSL_CTX*>(context_->context_.get()));
  PARLEY_CHECK(impl_->ssl != nullptr);
  impl_->wire.send = &send_;
  BIO* bio = BIO_new(WireMethod());
  PARLEY_CHECK(bio != nullptr);
  BIO_set_data(bio, &impl_->wire);
  BIO_set_init(bio, 1);
  SSL_set_bio(impl_->ssl, bio, bio);
  SSL_set_mtu(impl_->ssl, kMtu);
  DTLS_set_timer_cb(impl_->ssl, NextRetry);
  if (role_ == Role::kServer) {
    SSL_set_accept_state(impl_->ssl);
  } else {
    SSL_set_connect_state(impl_->ssl);
  }
}

DtlsTransport::~DtlsTransport() {
  if (connected_) {
    const Impl::Call call(*impl_);
    SSL_shutdown(impl_->ssl);  // says that it is over; nobody waits for an answer
  }
  SSL_free(impl_->ssl);
}

void DtlsTransport::Start() {
  const Impl::Call call(*impl_);
  impl_->begun = true;
  (void)Handshake();
}

absl::Status DtlsTransport::Take(Bytes datagram) {
  const Impl::Call call(*impl_);
  impl_->begun = true;
  impl_->wire.arriving = datagram;
  absl::Status status = connected_ ? absl::OkStatus() : Handshake();
  if (status.ok() && connected_) status = ReadAll();
  impl_->wire.arriving = {};
  ERR_clear_error();
  return status;
}

absl::Status DtlsTransport::Handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(impl_->ssl);
  if (result == 1) return Finish();
  const int error = SSL_get_error(impl_->ssl, result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return absl::OkStatus();
  return Aborted("the DTLS handshake failed");
}

absl::Status DtlsTransport::Finish() {
  X509* certificate = SSL_get1_peer_certificate(impl_->ssl);
  const std::string fingerprint = certificate == nullptr ? "" : FingerprintOf(certificate);
  X509_free(certificate);
  if (fingerprint.empty() || fingerprint != peer_fingerprint_) {
    return Unauthenticated("the DTLS certificate is not the one of the session description");
  }
  const SRTP_PROTECTION_PROFILE* profile = SSL_get_selected_srtp_profile(impl_->ssl);
  if (profile == nullptr) return Aborted("no SRTP profile was agreed on");
  const bool gcm = profile->id == SRTP_AEAD_AES_128_GCM;
  keys_.profile = gcm ? SrtpProfile::kAeadAes128Gcm : SrtpProfile::kAes128CmSha1_80;
  const size_t salt = gcm ? 12 : 14;
  uint8_t material[2 * (kKeyBytes + 14)];
  if (SSL_export_keying_material(impl_->ssl, material, 2 * (kKeyBytes + salt), kExporterLabel,
                                 std::strlen(kExporterLabel), nullptr, 0, 0) != 1) {
    return Internal("no SRTP keys could be made");
  }
  // client key, server key, client salt, server salt
  const auto side = [&](size_t index) {
    std::string key(reinterpret_cast<char*>(material) + index * kKeyBytes, kKeyBytes);
    key.append(reinterpret_cast<char*>(material) + 2 * kKeyBytes + index * salt, salt);
    return key;
  };
  keys_.send = side(role_ == Role::kClient ? 0 : 1);
  keys_.receive = side(role_ == Role::kClient ? 1 : 0);
  OPENSSL_cleanse(material, sizeof material);
  connected_ = true;
  return absl::OkStatus();
}

absl::Status DtlsTransport::ReadAll() {
  while (true) {
    const int size =
        SSL_read(impl_->ssl, impl_->plain.data(), static_cast<int>(impl_->plain.size()));
    if (size > 0) {
      receive_({impl_->plain.data(), static_cast<size_t>(size)});
      continue;
    }
    const int error = SSL_get_error(impl_->ssl, size);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return absl::OkStatus();
    return Aborted("the other side closed the DTLS connection");
  }
}

void DtlsTransport::Tick() {
  if (connected_ || !impl_->begun) return;
  const Impl::Call call(*impl_);
  DTLSv1_handle_timeout(impl_->ssl);
  ERR_clear_error();
}

bool DtlsTransport::Write(Bytes plain) {
  if (!connected_ || plain.empty()) return false;
  const Impl::Call call(*impl_);
  const int written = SSL_write(impl_->ssl, plain.data(), static_cast<int>(plain.size()));
  ERR_clear_error();
  return written == static_cast<int>(plain.size());
}

}  // namespace parley::webrtc
