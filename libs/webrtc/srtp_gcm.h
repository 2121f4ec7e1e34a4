#pragma once
// AES-GCM by OpenSSL for libsrtp. Debian's libsrtp has it by NSS, which makes keys and contexts
// anew for each packet. Internal to `webrtc`.

namespace parley::webrtc {

// Puts OpenSSL's cipher into libsrtp's place for AES-128-GCM. After srtp_init(), before the first
// session. False: libsrtp does not take it (its own tests of the cipher fail), and keeps its own.
bool UseOpenSslGcm();

}  // namespace parley::webrtc
