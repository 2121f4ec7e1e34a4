#include "api.h"

#include <cstdlib>

#include "base/status.h"
#include "http/sse.h"

namespace parley::cli {
namespace {

std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool OnLoopback(std::string_view url) {
  const size_t scheme = url.find("://");
  std::string_view host = scheme == std::string_view::npos ? url : url.substr(scheme + 3);
  host = host.substr(0, host.find('/'));
  return host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]");
}

absl::StatusCode CodeOf(int http_status) {
  switch (http_status) {
    case 400:
    case 413:
    case 422:
      return absl::StatusCode::kInvalidArgument;
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 408:
      return absl::StatusCode::kDeadlineExceeded;
    case 409:
      return absl::StatusCode::kAlreadyExists;
    case 412:
      return absl::StatusCode::kFailedPrecondition;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 501:
    case 405:
      return absl::StatusCode::kUnimplemented;
    case 502:
    case 503:
    case 504:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status StatusOf(const http::Reply& reply) {
  const Json body = Json::parse(reply.body, nullptr, false);
  if (body.is_object() && body.contains("msg") && body["msg"].is_string())
    return Error(CodeOf(reply.status), "{}", body["msg"].get<std::string>());
  return Error(CodeOf(reply.status), "the server answered {} without saying why", reply.status);
}

}  // namespace

std::string ServerUrl(const std::string& given) {
  std::string url = given;
  if (url.empty()) url = Env("PARLEY_SERVER");
  if (url.empty()) url = Env("LIVEKIT_URL");
  if (url.empty()) url = kDefaultServer;
  if (url.starts_with("ws")) url.replace(0, 2, "http");  // ws → http, wss → https
  while (url.ends_with('/')) url.pop_back();
  return url;
}

absl::StatusOr<auth::ApiKey> Credentials(std::string_view server) {
  for (const std::string prefix : {"PARLEY", "LIVEKIT"}) {
    auth::ApiKey key;
    key.key = Env((prefix + "_API_KEY").c_str());
    key.secret = Env((prefix + "_API_SECRET").c_str());
    if (!key.key.empty() && !key.secret.empty()) return key;
  }
  if (!OnLoopback(server)) {
    return Unauthenticated(
        "no API key for {}: set PARLEY_API_KEY and PARLEY_API_SECRET (or LIVEKIT_API_KEY and "
        "LIVEKIT_API_SECRET)",
        server);
  }
  return auth::KeyRing::Development()->keys().front();
}

absl::StatusOr<http::Call> Api::MakeCall(const std::string& method, const std::string& path) const {
  PARLEY_ASSIGN_OR_RETURN(const auth::ApiKey key, Credentials(server_));
  auth::Claims claims;
  claims.identity = "parley-cli";
  claims.agent_admin = true;
  claims.video.room_create = true;
  claims.video.room_list = true;

  http::Call call;
  call.method = method;
  call.url = server_ + path;
  call.headers = {{"Authorization", "Bearer " + auth::Sign(claims, key, absl::Minutes(5))}};
  call.connect_timeout = absl::Seconds(3);
  call.max_response_bytes = 64 << 20;
  call.reach = http::Reach::kAny;  // the user named the server
  return call;
}

absl::StatusOr<std::string> Api::Send(const std::string& method, const std::string& path,
                                      std::string content_type, std::string body, int* status_code,
                                      absl::Duration timeout) {
  PARLEY_ASSIGN_OR_RETURN(http::Call call, MakeCall(method, path));
  if (!content_type.empty()) call.headers.emplace_back("Content-Type", std::move(content_type));
  call.body = std::move(body);
  call.timeout = timeout;
  absl::StatusOr<http::Reply> reply = client_.Fetch(call);
  if (!reply.ok()) {
    if (reply.status().code() == absl::StatusCode::kUnavailable)
      return Unavailable("no Parley at {}; start one with `parley dev`", server_);
    return reply.status();
  }
  if (status_code != nullptr) *status_code = reply->status;
  if (reply->status < 200 || reply->status > 299) return StatusOf(*reply);
  return std::move(reply->body);
}

absl::StatusOr<Json> Api::Get(const std::string& path) {
  PARLEY_ASSIGN_OR_RETURN(const std::string body, Send("GET", path, "", ""));
  Json json = Json::parse(body, nullptr, false);
  if (json.is_discarded()) return Internal("{} did not answer with JSON at {}", server_, path);
  return json;
}

absl::StatusOr<Json> Api::Delete(const std::string& path) {
  PARLEY_ASSIGN_OR_RETURN(const std::string body, Send("DELETE", path, "", ""));
  return Json::parse(body, nullptr, false);
}

absl::StatusOr<Json> Api::Post(const std::string& path, const Json& body,
                               const std::string& idempotency_key) {
  Json with_key = body;
  if (!idempotency_key.empty()) with_key["idempotencyKey"] = idempotency_key;
  const std::string text = with_key.dump(-1, ' ', false, Json::error_handler_t::replace);
  PARLEY_ASSIGN_OR_RETURN(const std::string answer, Send("POST", path, "application/json", text));
  return Json::parse(answer, nullptr, false);
}

absl::StatusOr<Json> Api::Put(const std::string& path, const Json& body) {
  const std::string text = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  PARLEY_ASSIGN_OR_RETURN(const std::string answer, Send("PUT", path, "application/json", text));
  return Json::parse(answer, nullptr, false);
}

absl::StatusOr<Json> Api::List(const std::string& path, const std::string& field) {
  Json all = Json::array();
  std::string token;
  do {
    std::string page = path;
    if (!token.empty())
      page += (path.find('?') == std::string::npos ? "?" : "&") +
              ("page_token=" + http::UrlEncode(token));
    PARLEY_ASSIGN_OR_RETURN(const Json answer, Get(page));
    if (!answer.contains(field)) return Internal("{} answered without \"{}\"", server_, field);
    for (const Json& item : answer[field]) all.push_back(item);
    token = answer.value("nextPageToken", "");
  } while (!token.empty());
  return all;
}

absl::Status Api::Follow(const std::string& path,
                         const std::function<bool(const Json&)>& on_event) {
  PARLEY_ASSIGN_OR_RETURN(http::Call call, MakeCall("GET", path));
  call.timeout = absl::Hours(24);
  http::SseParser parser;
  std::string other;  // what was answered instead of events
  bool enough = false;
  const absl::StatusOr<http::Reply> reply = client_.Stream(call, [&](std::string_view piece) {
    if (other.size() < 4096) other += piece;
    if (!parser.Append(piece)) return false;
    while (const auto event = parser.Next()) {
      const Json json = Json::parse(event->data, nullptr, false);
      if (json.is_object() && !on_event(json)) enough = true;
      if (enough) return false;
    }
    return true;
  });
  if (enough) return absl::OkStatus();
  if (!reply.ok()) {
    if (!absl::IsUnavailable(reply.status())) return reply.status();
    return Unavailable("no Parley at {}, or it went away; start one with `parley dev`", server_);
  }
  if (reply->status / 100 != 2) return StatusOf({reply->status, {}, other});
  return Unavailable("{} has ended the stream of events", server_);
}

bool Api::Reachable() {
  http::Call call;
  call.url = server_ + "/healthz";
  call.timeout = absl::Seconds(1);
  call.connect_timeout = absl::Seconds(1);
  call.reach = http::Reach::kAny;
  const absl::StatusOr<http::Reply> reply = client_.Fetch(call);
  return reply.ok() && reply->status == 200;
}

}  // namespace parley::cli
