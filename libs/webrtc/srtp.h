#pragma once
// SRTP and SRTCP (libsrtp2) for one connection: one key for each direction. One thread.
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "webrtc/dtls.h"

namespace parley::webrtc {

class Srtp {
 public:
  static constexpr size_t kMaxTrailerBytes = 32;  // what protection adds at most

  //   Internal  libsrtp refuses the keys
  static absl::StatusOr<std::unique_ptr<Srtp>> Create(const SrtpKeys& keys);
  ~Srtp();
  Srtp(const Srtp&) = delete;
  Srtp& operator=(const Srtp&) = delete;

  // Each works in place on the first `size` bytes and answers the new size; 0 = refused (replayed,
  // forged, or no room for the trailer).
  size_t ProtectRtp(std::span<uint8_t> buffer, size_t size);
  size_t ProtectRtcp(std::span<uint8_t> buffer, size_t size);
  size_t UnprotectRtp(std::span<uint8_t> packet);
  size_t UnprotectRtcp(std::span<uint8_t> packet);

 private:
  struct Impl;
  Srtp();
  std::unique_ptr<Impl> impl_;
};

}  // namespace parley::webrtc
