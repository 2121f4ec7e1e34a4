#include "api_server/routes.h"

namespace parley::api_server {
namespace {

Json Parameters(const std::string& pattern) {
  Json parameters = Json::array();
  for (size_t open = pattern.find('{'); open != std::string::npos;
       open = pattern.find('{', open + 1)) {
    const std::string name = pattern.substr(open + 1, pattern.find('}', open) - open - 1);
    parameters.push_back(
        {{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
  }
  return parameters;
}

// "POST /api/agents/register" → postApiAgentsRegister
std::string OperationId(const Route& route) {
  std::string id;
  for (const char c : route.method)
    id += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  bool upper = false;
  for (const char c : route.pattern) {
    const bool letter = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (letter) id += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    upper = !letter;
  }
  return id;
}

Json Operation(const Route& route) {
  const Json error = {
      {"description", "An error"},
      {"content", {{"application/json", {{"schema", {{"$ref", "#/components/schemas/Error"}}}}}}}};
  Json operation = {
      {"operationId", OperationId(route)},
      {"summary", route.summary},
      {"responses",
       {{std::to_string(route.success), {{"description", "Done"}}}, {"default", error}}}};
  if (Json parameters = Parameters(route.pattern); !parameters.empty())
    operation["parameters"] = std::move(parameters);
  if (!route.grant.empty()) {
    operation["description"] = "Grant: " + route.grant;
    operation["security"] = Json::array({{{"bearer", Json::array()}}});
  }
  if (!route.request.is_null()) {
    Json schema = route.request;
    const bool multipart = schema.erase("x-multipart") > 0;
    operation["requestBody"] = {{"content",
                                 {{multipart ? "multipart/form-data" : "application/json",
                                   {{"schema", std::move(schema)}}}}}};
  }
  return operation;
}

}  // namespace

Json OpenApi(const std::vector<Route>& routes) {
  Json paths = Json::object();
  for (const Route& route : routes) {
    std::string method;
    for (const char c : route.method)
      method += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    paths[route.pattern][method] = Operation(route);
  }
  const Json error =
      Json::parse(R"json({"type": "object", "required": ["code", "msg", "meta"], "properties": {
    "code": {"type": "string"}, "msg": {"type": "string"}, "meta": {"type": "object"}}})json");
  return {
      {"openapi", "3.0.3"},
      {"info",
       {{"title", "Parley"}, {"version", "1"}, {"description", "Agents, sessions and what runs"}}},
      {"paths", std::move(paths)},
      {"components",
       {{"schemas", {{"Error", error}}},
        {"securitySchemes",
         {{"bearer", {{"type", "http"}, {"scheme", "bearer"}, {"bearerFormat", "JWT"}}}}}}}};
}

}  // namespace parley::api_server
