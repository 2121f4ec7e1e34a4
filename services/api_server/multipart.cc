#include "api_server/multipart.h"

#include "base/status.h"
#include "base/strings.h"

namespace parley::api_server {
namespace {

constexpr size_t kMaxParts = 32;
constexpr size_t kMaxHeaders = 8 << 10;

// The value of `name="…"` or `name=…` in a header's parameters; "" when absent.
std::string Parameter(std::string_view header, std::string_view name) {
  for (size_t at = header.find(';'); at != std::string_view::npos; at = header.find(';', at)) {
    const std::string_view rest = Trim(header.substr(++at));
    if (rest.size() <= name.size() || ToLower(rest.substr(0, name.size())) != name ||
        rest[name.size()] != '=')
      continue;
    std::string_view value = rest.substr(name.size() + 1);
    if (!value.empty() && value[0] == '"') {
      const size_t end = value.find('"', 1);
      return end == std::string_view::npos ? std::string() : std::string(value.substr(1, end - 1));
    }
    return std::string(Trim(value.substr(0, value.find(';'))));
  }
  return {};
}

absl::StatusOr<FormPart> ParsePart(std::string_view headers, std::string_view data) {
  FormPart part;
  part.data = data;
  for (const std::string& line : Split(headers, '\n')) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || ToLower(Trim(line.substr(0, colon))) != "content-disposition")
      continue;
    const std::string_view value = Trim(std::string_view(line).substr(colon + 1));
    part.name = Parameter(value, "name");
    part.file_name = Parameter(value, "filename");
  }
  if (part.name.empty()) return InvalidArgument("multipart/form-data: a part has no name");
  return part;
}

}  // namespace

absl::StatusOr<std::vector<FormPart>> ParseMultipart(std::string_view content_type,
                                                     std::string_view body) {
  if (ToLower(content_type.substr(0, 19)) != "multipart/form-data") {
    return InvalidArgument("the body must be multipart/form-data with a part named file");
  }
  const std::string boundary = Parameter(content_type, "boundary");
  if (boundary.empty() || boundary.size() > 70)
    return InvalidArgument("multipart/form-data: no valid boundary");
  const std::string delimiter = "--" + boundary;
  std::vector<FormPart> parts;
  size_t at = body.find(delimiter);
  while (at != std::string_view::npos) {
    at += delimiter.size();
    if (body.substr(at, 2) == "--") return parts;
    if (body.substr(at, 2) != "\r\n" || parts.size() == kMaxParts) break;
    at += 2;
    const size_t headers_end = body.find("\r\n\r\n", at);
    const size_t end = headers_end == std::string_view::npos
                           ? headers_end
                           : body.find("\r\n" + delimiter, headers_end + 2);
    if (end == std::string_view::npos || headers_end - at > kMaxHeaders) break;
    const size_t data = std::min(headers_end + 4, end);
    PARLEY_ASSIGN_OR_RETURN(
        FormPart part, ParsePart(body.substr(at, headers_end - at), body.substr(data, end - data)));
    parts.push_back(std::move(part));
    at = end + 2;
  }
  return InvalidArgument("multipart/form-data: the body is cut short or malformed");
}

}  // namespace parley::api_server
