#include "webrtc/srtp.h"

#include <srtp2/srtp.h>

#include <vector>

#include "base/check.h"
#include "base/status.h"
#include "webrtc/srtp_gcm.h"

namespace parley::webrtc {
namespace {

constexpr unsigned kReplayWindow = 1024;

void InitOnce() {
  static const bool kDone = [] {
    PARLEY_CHECK(srtp_init() == srtp_err_status_ok);
    return UseOpenSslGcm();  // without it all works, at several times the cost
  }();
  static_cast<void>(kDone);
}

srtp_t Make(SrtpProfile profile, const std::string& key, srtp_ssrc_type_t direction) {
  srtp_policy_t policy{};
  if (profile == SrtpProfile::kAeadAes128Gcm) {
    srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtp);
    srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtcp);
  } else {
    srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtp);
    srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtcp);
  }
  std::vector<uint8_t> copy(key.begin(), key.end());
  policy.key = copy.data();
  policy.ssrc.type = direction;
  policy.window_size = kReplayWindow;
  srtp_t session = nullptr;
  return srtp_create(&session, &policy) == srtp_err_status_ok ? session : nullptr;
}

}  // namespace

struct Srtp::Impl {
  srtp_t send = nullptr;
  srtp_t receive = nullptr;
};

Srtp::Srtp() : impl_(std::make_unique<Impl>()) {}

Srtp::~Srtp() {
  if (impl_->send != nullptr) srtp_dealloc(impl_->send);
  if (impl_->receive != nullptr) srtp_dealloc(impl_->receive);
}

absl::StatusOr<std::unique_ptr<Srtp>> Srtp::Create(const SrtpKeys& keys) {
  InitOnce();
  std::unique_ptr<Srtp> srtp(new Srtp());
  srtp->impl_->send = Make(keys.profile, keys.send, ssrc_any_outbound);
  srtp->impl_->receive = Make(keys.profile, keys.receive, ssrc_any_inbound);
  if (srtp->impl_->send == nullptr || srtp->impl_->receive == nullptr) {
    return Internal("libsrtp refuses the keys");
  }
  return srtp;
}

size_t Srtp::ProtectRtp(std::span<uint8_t> buffer, size_t size) {
  if (size + kMaxTrailerBytes > buffer.size()) return 0;
  int length = static_cast<int>(size);
  const bool done = srtp_protect(impl_->send, buffer.data(), &length) == srtp_err_status_ok;
  return done ? static_cast<size_t>(length) : 0;
}

size_t Srtp::ProtectRtcp(std::span<uint8_t> buffer, size_t size) {
  if (size + kMaxTrailerBytes > buffer.size()) return 0;
  int length = static_cast<int>(size);
  const bool done = srtp_protect_rtcp(impl_->send, buffer.data(), &length) == srtp_err_status_ok;
  return done ? static_cast<size_t>(length) : 0;
}

size_t Srtp::UnprotectRtp(std::span<uint8_t> packet) {
  int length = static_cast<int>(packet.size());
  const bool done = srtp_unprotect(impl_->receive, packet.data(), &length) == srtp_err_status_ok;
  return done ? static_cast<size_t>(length) : 0;
}

size_t Srtp::UnprotectRtcp(std::span<uint8_t> packet) {
  int length = static_cast<int>(packet.size());
  const bool done =
      srtp_unprotect_rtcp(impl_->receive, packet.data(), &length) == srtp_err_status_ok;
  return done ? static_cast<size_t>(length) : 0;
}

}  // namespace parley::webrtc
