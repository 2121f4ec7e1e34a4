// Bodies of HTTP requests from strangers, as JSON and as forms: no crash, and what is read can be
// written.
#include <cstdint>
#include <string>
#include <string_view>

#include "api_server/json.h"
#include "api_server/multipart.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::api_server;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto body = Body::Parse(text); body.ok()) {
    body->Text("agent");
    body->TextMap("attributes");
    body->Integer("priority", 0, 0, 9);
    const Json config = body->Any("room_config");
    JsonResponse(config);
    (void)body->Finish();
  }
  const size_t line = text.find('\n');
  if (line != std::string_view::npos) {
    (void)ParseMultipart(text.substr(0, line), text.substr(line + 1));
  }
  return 0;
}
