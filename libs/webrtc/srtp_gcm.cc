#include "webrtc/srtp_gcm.h"

#include <openssl/evp.h>
#include <srtp2/cipher.h>
#include <srtp2/srtp.h>

#include <array>
#include <memory>

namespace parley::webrtc {
namespace {

constexpr int kIvBytes = 12;
constexpr int kTagBytes = 16;
constexpr int kShortTagBytes = 8;
constexpr int kKeyAndSaltBytes = 28;

// One key of one direction; libsrtp calls it for one packet after another.
struct Gcm {
  struct Free {
    void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  };
  srtp_cipher_t cipher{};  // what libsrtp knows of it
  std::unique_ptr<EVP_CIPHER_CTX, Free> context{EVP_CIPHER_CTX_new()};
  int tag_bytes = kTagBytes;
  bool encrypts = true;  // the way of the packet at hand
};

srtp_cipher_type_t& Type();

// Looked up once: EVP_aes_128_gcm() is looked up for each key.
const EVP_CIPHER* Algorithm() {
  static const EVP_CIPHER* const kAlgorithm = EVP_CIPHER_fetch(nullptr, "AES-128-GCM", nullptr);
  return kAlgorithm;
}

srtp_err_status_t Done(bool well) {
  return well ? srtp_err_status_ok : srtp_err_status_cipher_fail;
}

srtp_err_status_t Alloc(srtp_cipher_pointer_t* out, int key_bytes, int tag_bytes) {
  if (key_bytes != kKeyAndSaltBytes || (tag_bytes != kTagBytes && tag_bytes != kShortTagBytes)) {
    return srtp_err_status_bad_param;
  }
  auto gcm = std::make_unique<Gcm>();
  if (gcm->context == nullptr || Algorithm() == nullptr) return srtp_err_status_alloc_fail;
  gcm->cipher.type = &Type();
  gcm->cipher.state = gcm.get();
  gcm->cipher.key_len = key_bytes;
  gcm->cipher.algorithm = SRTP_AES_GCM_128;
  gcm->tag_bytes = tag_bytes;
  *out = &gcm.release()->cipher;
  return srtp_err_status_ok;
}

srtp_err_status_t Dealloc(srtp_cipher_pointer_t cipher) {
  delete static_cast<Gcm*>(cipher->state);
  return srtp_err_status_ok;
}

// The salt behind the key is libsrtp's to use.
srtp_err_status_t Init(void* state, const uint8_t* key) {
  EVP_CIPHER_CTX* context = static_cast<Gcm*>(state)->context.get();
  return Done(EVP_CipherInit_ex(context, Algorithm(), nullptr, key, nullptr, 1) == 1 &&
              EVP_CIPHER_CTX_get_iv_length(context) == kIvBytes);
}

srtp_err_status_t SetIv(void* state, uint8_t* iv, srtp_cipher_direction_t direction) {
  auto* gcm = static_cast<Gcm*>(state);
  if (direction != srtp_direction_encrypt && direction != srtp_direction_decrypt) {
    return srtp_err_status_bad_param;
  }
  gcm->encrypts = direction == srtp_direction_encrypt;
  return Done(EVP_CipherInit_ex(gcm->context.get(), nullptr, nullptr, nullptr, iv,
                                gcm->encrypts ? 1 : 0) == 1);
}

srtp_err_status_t SetAad(void* state, const uint8_t* aad, uint32_t bytes) {
  int done = 0;
  return Done(bytes == 0 || EVP_CipherUpdate(static_cast<Gcm*>(state)->context.get(), nullptr,
                                             &done, aad, static_cast<int>(bytes)) == 1);
}

// In place; the tag is asked for by GetTag.
srtp_err_status_t Encrypt(void* state, uint8_t* buffer, unsigned* bytes) {
  auto* gcm = static_cast<Gcm*>(state);
  if (!gcm->encrypts) return srtp_err_status_bad_param;
  int done = 0;
  int rest = 0;
  return Done(
      EVP_CipherUpdate(gcm->context.get(), buffer, &done, buffer, static_cast<int>(*bytes)) == 1 &&
      EVP_CipherFinal_ex(gcm->context.get(), buffer + done, &rest) == 1);
}

srtp_err_status_t GetTag(void* state, uint8_t* tag, uint32_t* bytes) {
  auto* gcm = static_cast<Gcm*>(state);
  *bytes = static_cast<uint32_t>(gcm->tag_bytes);
  return Done(EVP_CIPHER_CTX_ctrl(gcm->context.get(), EVP_CTRL_AEAD_GET_TAG, gcm->tag_bytes, tag) ==
              1);
}

// In place; the tag stands at the end, and is checked and taken off.
srtp_err_status_t Decrypt(void* state, uint8_t* buffer, unsigned* bytes) {
  auto* gcm = static_cast<Gcm*>(state);
  const int plain = static_cast<int>(*bytes) - gcm->tag_bytes;
  if (gcm->encrypts || plain < 0) return srtp_err_status_bad_param;
  int done = 0;
  int rest = 0;
  const bool genuine = EVP_CIPHER_CTX_ctrl(gcm->context.get(), EVP_CTRL_AEAD_SET_TAG,
                                           gcm->tag_bytes, buffer + plain) == 1 &&
                       EVP_CipherUpdate(gcm->context.get(), buffer, &done, buffer, plain) == 1 &&
                       EVP_CipherFinal_ex(gcm->context.get(), buffer + done, &rest) == 1;
  if (!genuine) return srtp_err_status_auth_fail;
  *bytes = static_cast<unsigned>(plain);
  return srtp_err_status_ok;
}

// libsrtp wants a vector with each cipher, and has its own besides: zeros under a key of zeros (the
// second of McGrew's and Viega's).
constexpr std::array<uint8_t, kKeyAndSaltBytes> kTestKey{};
constexpr std::array<uint8_t, 16> kTestPlain{};
constexpr std::array<uint8_t, 16 + kTagBytes> kTestCipher = {
    0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92, 0xf3, 0x28, 0xc2, 0xb9, 0x71, 0xb2, 0xfe, 0x78,
    0xab, 0x6e, 0x47, 0xd4, 0x2c, 0xec, 0x13, 0xbd, 0xf5, 0x3a, 0x67, 0xb2, 0x12, 0x57, 0xbd, 0xdf};

srtp_cipher_type_t& Type() {
  static std::array<uint8_t, kIvBytes> iv{};
  static const srtp_cipher_test_case_t kCase = {.key_length_octets = kKeyAndSaltBytes,
                                                .key = kTestKey.data(),
                                                .idx = iv.data(),
                                                .plaintext_length_octets = kTestPlain.size(),
                                                .plaintext = kTestPlain.data(),
                                                .ciphertext_length_octets = kTestCipher.size(),
                                                .ciphertext = kTestCipher.data(),
                                                .aad_length_octets = 0,
                                                .aad = nullptr,
                                                .tag_length_octets = kTagBytes,
                                                .next_test_case = nullptr};
  static srtp_cipher_type_t type = {.alloc = Alloc,
                                    .dealloc = Dealloc,
                                    .init = Init,
                                    .set_aad = SetAad,
                                    .encrypt = Encrypt,
                                    .decrypt = Decrypt,
                                    .set_iv = SetIv,
                                    .get_tag = GetTag,
                                    .description = "AES-128 GCM by OpenSSL",
                                    .test_data = &kCase,
                                    .id = SRTP_AES_GCM_128};
  return type;
}

}  // namespace

bool UseOpenSslGcm() {
  return srtp_replace_cipher_type(&Type(), SRTP_AES_GCM_128) == srtp_err_status_ok;
}

}  // namespace parley::webrtc
