#pragma once
// TLS of gRPC, mutual if wanted. Files are PEM and are looked at every 5 s: whoever renews a
// certificate replaces them, and connections made from then on use the new one; those that are open
// stay. Key and certificate are to be replaced at once, as a mounted secret is (behind one link):
// nobody can connect while they do not fit.
#include <absl/status/status.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

namespace parley::rpc {

struct TlsFiles {
  std::string certificate;  // chain that this process shows; goes with `key`
  std::string key;
  std::string authorities;  // whose certificates it trusts
  // The name that servers' certificates carry, wherever they run; "" = that of the address dialled.
  std::string server_name;
  bool mutual = false;  // servers let in only who shows a certificate of `authorities`

  bool serves() const { return !certificate.empty(); }  // servers speak TLS
  bool dials() const { return !authorities.empty(); }   // channels do
};

// InvalidArgument: a file cannot be read or is no PEM, a key without its certificate, or `mutual`
// without authorities. Blocks on the disk.
absl::Status Check(const TlsFiles& files);

// How all channels that this process makes from now on are secured; plain before the first call.
// Thread-safe.
void UseTls(const TlsFiles& files);

std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const TlsFiles& files);

// What channels are made with just now.
struct ChannelSecurity {
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  std::string server_name;  // "" = that of the address
};
ChannelSecurity SecurityInUse();

}  // namespace parley::rpc
