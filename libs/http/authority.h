#pragma once
#include <string>

namespace parley::http {

// From now on every client of this process trusts, for URLs of `origin` ("https://10.0.0.1:443"),
// the certificate authorities of this PEM file and no others: Kubernetes' API has one of its own.
// Thread-safe; the file is read with each new connection.
void SetAuthority(const std::string& origin, const std::string& ca_file);

}  // namespace parley::http
