#include "engines/openai/provider.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/trace_context.h"
#include "engines/openai/chat_codec.h"

namespace parley::engines::openai {
namespace {

constexpr int kMaxDepth = 64;

// Unique, and to be found by the trace.
std::string NewRequestId() {
  const std::string trace = CurrentTrace().TraceId();
  return (trace.empty() ? RandomHex(16) : trace) + "-" + RandomHex(4);
}

// What may stand in a log of it: an id, "" otherwise.
std::string_view IdOnly(std::string_view id) {
  constexpr size_t kMaxBytes = 64;
  const bool plain =
      id.size() <= kMaxBytes && std::all_of(id.begin(), id.end(), [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_';
      });
  return plain ? id : std::string_view();
}

}  // namespace

Request::Request(const std::string& base_url, const speech::ProviderKeys& keys, std::string project,
                 std::string_view path)
    : project_(std::move(project)), own_key_(keys.HasOwn(project_)), id_(NewRequestId()) {
  call.method = "POST";
  call.url = base_url + std::string(path);
  if (const std::string& key = keys.Of(project_); !key.empty())
    call.headers.emplace_back("authorization", "Bearer " + key);
  call.headers.emplace_back("x-client-request-id", id_);
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
  const std::string_view theirs = IdOnly(header("x-request-id"));
  return Failed(theirs.empty() ? status : Annotate(status, fmt::format("there {}", theirs)));
}

absl::Status Request::Failed(const absl::Status& status) const {
  return Annotate(status, fmt::format("request {}", id_));
}

absl::StatusOr<std::string> TranscriptOf(std::string_view body) {
  const nlohmann::json answer =
      JsonNestsWithin(body, kMaxDepth) ? nlohmann::json::parse(body, nullptr, false) : nullptr;
  if (!answer.is_object() || !answer.contains("text") || !answer["text"].is_string())
    return Unavailable("the provider's answer is not {{\"text\": …}}");
  return answer["text"].get<std::string>();
}

}  // namespace parley::engines::openai
