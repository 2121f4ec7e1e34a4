// Definitions, arguments and answers of HTTP tools: all three come from outside.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tools/http_tool.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parley::tools::ToolSet::FromDefinition(text);
  (void)parley::tools::Template::Parse(text);
  if (auto path = parley::tools::JsonPath::Parse(text); path.ok()) {
    (void)path->Find(nlohmann::json{{"rate", 89}, {"rooms", {1, 2}}});
  }
  static const auto tool = parley::tools::HttpTool::Parse(nlohmann::json::parse(
      R"({"name": "t", "http": {"url": "https://a.example/{room}", "result": "$.rate"}})"));
  (void)tool->MakeCall(text);
  parley::http::Reply reply;
  reply.status = 200;
  reply.body = text;
  (void)tool->ReadReply(reply);
  return 0;
}
