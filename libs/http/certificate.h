#pragma once
#include <absl/status/status.h>

#include <string>

namespace parley::http {

// The PEM files of the certificate that a server shows. One thread at a time; calls read the disk.
class Certificate {
 public:
  Certificate(std::string chain, std::string key);

  // InvalidArgument: only one is named, one cannot be read or is no PEM, or the key is not that of
  // the certificate.
  absl::Status Check() const;
  // Are they others than at the call before, or than at the construction? Looks at names and times
  // only: a link that leads elsewhere counts, as mounted secrets are replaced.
  bool Changed();

 private:
  std::string Stamp() const;

  const std::string chain_;
  const std::string key_;
  std::string stamp_;
};

}  // namespace parley::http
