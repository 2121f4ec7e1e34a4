#include "engines/openai/provider.h"

#include <nlohmann/json.hpp>

#include "base/status.h"
#include "base/strings.h"
#include "engines/openai/chat_codec.h"

namespace parley::engines::openai {
namespace {

constexpr int kMaxDepth = 64;

}  // namespace

http::Call Post(const std::string& base_url, const std::string& key, std::string_view path) {
  http::Call call;
  call.method = "POST";
  call.url = base_url + std::string(path);
  if (!key.empty()) call.headers.emplace_back("authorization", "Bearer " + key);
  call.reach = http::Reach::kAny;
  return call;
}

absl::Status OnTheWay(const absl::Status& status, std::string_view setting) {
  if (absl::IsInvalidArgument(status) || absl::IsPermissionDenied(status))
    return Unavailable("{}: {}", setting, Message(status));
  return status;
}

absl::StatusOr<std::string> TranscriptOf(std::string_view body) {
  const nlohmann::json answer =
      JsonNestsWithin(body, kMaxDepth) ? nlohmann::json::parse(body, nullptr, false) : nullptr;
  if (!answer.is_object() || !answer.contains("text") || !answer["text"].is_string())
    return Unavailable("the provider's answer is not {{\"text\": …}}");
  return answer["text"].get<std::string>();
}

absl::Status ErrorOf(const http::Reply& reply) {
  const auto retry = reply.headers.find("retry-after");
  return ChatError(reply.status, reply.body,
                   retry == reply.headers.end() ? std::string_view() : retry->second);
}

}  // namespace parley::engines::openai
