// TLS of what the command line calls: gRPC of rooms and services, and an api_server over HTTPS.
#include "rpc/tls.h"

#include "base/status.h"
#include "command.h"
#include "http/authority.h"

namespace parley::cli {

void AddTls(CLI::App& root, TlsWish& wish) {
  const auto add = [&root](const char* flag, const char* variable, std::string& file,
                           const char* help) {
    root.add_option(flag, file, help)->envname(variable)->group("TLS");
  };
  add("--server-authorities", "PARLEY_SERVER_AUTHORITIES", wish.server_authorities,
      "PEM file of the authorities of an https:// server; default: this machine's");
  add("--tls-authorities", "PARLEY_TLS_AUTHORITIES", wish.authorities,
      "Speak TLS over gRPC: PEM file of the authorities of the services' certificate");
  add("--tls-certificate", "PARLEY_TLS_CERTIFICATE", wish.certificate,
      "PEM file of the certificate to show, where services ask for one (mutual TLS)");
  add("--tls-key", "PARLEY_TLS_KEY", wish.key, "PEM file of its key");
  add("--tls-server-name", "PARLEY_TLS_SERVER_NAME", wish.server_name,
      "Name that the services' certificate carries; default: that of the address called");
}

absl::Status Command::UseTls() const {
  rpc::TlsFiles files;
  files.certificate = tls.certificate;
  files.key = tls.key;
  files.authorities = tls.authorities;
  files.server_name = tls.server_name;
  if (files.serves() && !files.dials())
    return UsageError("--tls-certificate needs --tls-authorities: whose services to show it to");
  PARLEY_RETURN_IF_ERROR(rpc::Check(files));
  if (files.dials()) rpc::UseTls(files);
  return absl::OkStatus();
}

Api Command::MakeApi() const {
  const std::string url = ServerUrl(server);
  if (!tls.server_authorities.empty())
    http::SetAuthority(url.substr(0, url.find('/', url.find("://") + 3)), tls.server_authorities);
  return Api(url);
}

}  // namespace parley::cli
