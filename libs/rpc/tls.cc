#include "rpc/tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <fstream>
#include <sstream>

#include "base/mutex.h"
#include "base/status.h"

namespace parley::rpc {
namespace {

using grpc::experimental::FileWatcherCertificateProvider;

constexpr unsigned kLookEverySeconds = 5;

struct InUse {
  Mutex mutex;
  ChannelSecurity security ABSL_GUARDED_BY(mutex) = {grpc::InsecureChannelCredentials(), ""};
};
InUse& Current() {
  static auto* const current = new InUse;
  return *current;
}

absl::Status CheckPem(std::string_view setting, const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return InvalidArgument("{}: the file {} cannot be read", setting, path);
  if (text.str().find("-----BEGIN ") == std::string::npos)
    return InvalidArgument("{}: the file {} is not PEM", setting, path);
  return absl::OkStatus();
}

std::shared_ptr<FileWatcherCertificateProvider> Provider(const TlsFiles& files) {
  return std::make_shared<FileWatcherCertificateProvider>(files.key, files.certificate,
                                                          files.authorities, kLookEverySeconds);
}

}  // namespace

absl::Status Check(const TlsFiles& files) {
  if (files.certificate.empty() != files.key.empty())
    return InvalidArgument("tls.certificate and tls.key go together: name both or neither");
  if (files.mutual && (files.certificate.empty() || files.authorities.empty()))
    return InvalidArgument("tls.mutual needs tls.certificate, tls.key and tls.authorities");
  if (files.serves()) {
    PARLEY_RETURN_IF_ERROR(CheckPem("tls.certificate", files.certificate));
    PARLEY_RETURN_IF_ERROR(CheckPem("tls.key", files.key));
  }
  if (files.dials()) PARLEY_RETURN_IF_ERROR(CheckPem("tls.authorities", files.authorities));
  return absl::OkStatus();
}

// One for all channels: each watches its files with a thread of its own.
void UseTls(const TlsFiles& files) {
  ChannelSecurity security = {grpc::InsecureChannelCredentials(), files.server_name};
  if (files.dials()) {
    grpc::experimental::TlsChannelCredentialsOptions options;
    options.set_certificate_provider(Provider(files));
    options.watch_root_certs();
    if (files.serves()) options.watch_identity_key_cert_pairs();
    security.credentials = grpc::experimental::TlsCredentials(options);
  }
  MutexLock lock(&Current().mutex);
  Current().security = std::move(security);
}

ChannelSecurity SecurityInUse() {
  MutexLock lock(&Current().mutex);
  return Current().security;
}

std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const TlsFiles& files) {
  if (!files.serves()) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(Provider(files));
  options.watch_identity_key_cert_pairs();
  if (files.mutual) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace parley::rpc
