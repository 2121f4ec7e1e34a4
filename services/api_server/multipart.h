#pragma once
#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <vector>

namespace parley::api_server {

struct FormPart {
  std::string name;
  std::string file_name;  // "" when the part is a plain field
  std::string_view data;  // points into the body
};

// Reads a multipart/form-data body (RFC 7578): at most 32 parts, headers of at most 8 KiB each.
//   InvalidArgument  not multipart/form-data, no boundary, cut short, a part without a name
absl::StatusOr<std::vector<FormPart>> ParseMultipart(std::string_view content_type,
                                                     std::string_view body);

}  // namespace parley::api_server
