#include "http/certificate.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/stat.h>

#include <memory>
#include <utility>

#include "base/status.h"

namespace parley::http {

Certificate::Certificate(std::string chain, std::string key)
    : chain_(std::move(chain)), key_(std::move(key)), stamp_(Stamp()) {}

absl::Status Certificate::Check() const {
  if (chain_.empty() != key_.empty())
    return InvalidArgument("a certificate and its key go together: name both or neither");
  if (chain_.empty()) return absl::OkStatus();
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_server_method()),
                                                             &SSL_CTX_free);
  absl::Status status;
  if (SSL_CTX_use_certificate_chain_file(context.get(), chain_.c_str()) != 1) {
    status = InvalidArgument("{} is no readable PEM file of certificates", chain_);
  } else if (SSL_CTX_use_PrivateKey_file(context.get(), key_.c_str(), SSL_FILETYPE_PEM) != 1) {
    status = InvalidArgument("{} is not the readable PEM file of the key of {}", key_, chain_);
  }
  ERR_clear_error();  // else the next reader of this thread's errors takes them for its own
  return status;
}

bool Certificate::Changed() {
  std::string now = Stamp();
  return std::exchange(stamp_, now) != now;
}

std::string Certificate::Stamp() const {
  std::string stamp;
  for (const std::string& path : {chain_, key_}) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) continue;
    stamp += fmt::format("{}/{}/{}.{} ", info.st_dev, info.st_ino, info.st_mtim.tv_sec,
                         info.st_mtim.tv_nsec);
  }
  return stamp;
}

}  // namespace parley::http
