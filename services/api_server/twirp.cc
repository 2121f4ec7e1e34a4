#include "api_server/twirp.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <charconv>

#include "api_server/json.h"
#include "base/status.h"
#include "base/strings.h"

namespace parley::api_server::twirp {
namespace {

constexpr int kMaxNesting = 32;
constexpr absl::Duration kDefaultTimeout = absl::Seconds(10);
constexpr int64_t kMaxTimeoutMs = 60'000;
constexpr std::string_view kMalformed = "MALFORMED";

absl::Status Malformed(std::string_view why) {
  return WithReason(InvalidArgument("the body is {}", why), kMalformed);
}

}  // namespace

std::optional<Form> FormOf(std::string_view content_type) {
  const std::string type = ToLower(Trim(content_type.substr(0, content_type.find(';'))));
  if (type == "application/json") return Form::kJson;
  if (type == "application/protobuf") return Form::kProtobuf;
  return std::nullopt;
}

absl::Status Read(Form form, std::string_view body, google::protobuf::Message* message) {
  if (body.size() > kMaxBodyBytes) return Malformed("too large");
  if (form == Form::kProtobuf) {
    if (message->ParseFromArray(body.data(), static_cast<int>(body.size()))) {
      return absl::OkStatus();
    }
    return Malformed("not this message in protobuf");
  }
  if (!JsonNestsWithin(body, kMaxNesting)) return Malformed("nested too deeply");
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(body.data(), body.size()), message, options);
  return status.ok() ? absl::OkStatus() : Malformed("not this message in JSON");
}

http::Response Write(Form form, const google::protobuf::Message& message) {
  if (form == Form::kProtobuf) {
    return {200, "application/protobuf", message.SerializeAsString(), {}};
  }
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) {
    return Error(Internal("the answer cannot be written as JSON"));
  }
  return {200, "application/json", std::move(text), {}};
}

http::Response Error(const absl::Status& status) {
  http::Response response = ErrorResponse(status);
  if (ReasonOf(status).reason != kMalformed) return response;
  Json body = Json::parse(response.body, nullptr, false);
  body["code"] = "malformed";
  response.body = body.dump();
  return response;
}

http::Response BadRoute(std::string_view message) {
  return JsonResponse({{"code", "bad_route"}, {"msg", message}, {"meta", Json::object()}}, 404);
}

absl::Duration TimeoutOf(const http::Request& request) {
  const std::string_view text = request.Header("x-twirp-timeout-ms");
  int64_t ms = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ms);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    return kDefaultTimeout;
  }
  return absl::Milliseconds(std::clamp<int64_t>(ms, 1, kMaxTimeoutMs));
}

absl::Status RequireExactRoom(const auth::Claims& claims, std::string_view room) {
  if (claims.is_service()) return absl::OkStatus();
  if (claims.video.room_admin && claims.video.room == room) return absl::OkStatus();
  return WithReason(
      Unauthenticated("the token lacks the grant video.roomAdmin for the room \"{}\"", room),
      "GRANT_MISSING", {{"grant", "video.roomAdmin"}});
}

}  // namespace parley::api_server::twirp
