#include "engines/openai/provider.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/trace_context.h"
#include "engines/openai/chat_codec.h"
#include "speech/provider_words.h"

namespace parley::engines::openai {
namespace {

constexpr int kMaxDepth = 64;

}  // namespace

std::string NewRequestId() {
  const std::string trace = CurrentTrace().TraceId();
  return (trace.empty() ? RandomHex(16) : trace) + "-" + RandomHex(4);
}

Request::Request(const std::string& base_url, const speech::ProviderKeys& keys, std::string project,
                 std::string_view path)
    : project_(std::move(project)), own_key_(keys.HasOwn(project_)), id_(NewRequestId()) {
  call.method = "POST";
  call.url = base_url + std::string(path);
  if (const std::string& key = keys.Of(project_); !key.empty())
    call.headers.emplace_back("authorization", "Bearer " + key);
  call.headers.emplace_back(kOurIdHeader, id_);
  call.reach = http::Reach::kAny;
}

absl::Status Request::Lost(const absl::Status& status, std::string_view setting) const {
  if (absl::IsInvalidArgument(status) || absl::IsPermissionDenied(status))
    return Failed(Unavailable("{}: {}", setting, Message(status)));
  return Failed(status);
}

absl::Status Request::Refused(const http::Reply& reply) const {
  const auto header = [&reply](const char* name) {
    const auto it = reply.headers.find(name);
    return it == reply.headers.end() ? std::string_view() : std::string_view(it->second);
  };
  const bool key = reply.status == 401 || reply.status == 403;
  const absl::Status status = key && own_key_
                                  ? speech::OwnKeyRefused("openai", project_)
                                  : ChatError(reply.status, reply.body, header("retry-after"));
  return WithIds(status, id_, header(kTheirIdHeader));
}

absl::Status Request::Failed(const absl::Status& status) const { return WithIds(status, id_, ""); }

absl::Status WithIds(const absl::Status& status, std::string_view ours, std::string_view theirs) {
  theirs = speech::IdOnly(theirs);
  return Annotate(theirs.empty() ? status : Annotate(status, fmt::format("there {}", theirs)),
                  fmt::format("request {}", ours));
}

absl::StatusOr<std::string> TranscriptOf(std::string_view body) {
  const nlohmann::json answer =
      JsonNestsWithin(body, kMaxDepth) ? nlohmann::json::parse(body, nullptr, false) : nullptr;
  if (!answer.is_object() || !answer.contains("text") || !answer["text"].is_string())
    return Unavailable("the provider's answer is not {{\"text\": …}}");
  return answer["text"].get<std::string>();
}

}  // namespace parley::engines::openai
