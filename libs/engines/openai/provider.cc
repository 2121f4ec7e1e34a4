#include "engines/openai/provider.h"

#include "base/status.h"
#include "engines/openai/chat_codec.h"

namespace parley::engines::openai {

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

absl::Status ErrorOf(const http::Reply& reply) {
  const auto retry = reply.headers.find("retry-after");
  return ChatError(reply.status, reply.body,
                   retry == reply.headers.end() ? std::string_view() : retry->second);
}

}  // namespace parley::engines::openai
