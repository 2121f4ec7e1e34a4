#pragma once
// What the engines for OpenAI-compatible servers share.
#include <absl/status/statusor.h>

#include <string>
#include <string_view>

#include "http/client.h"
#include "speech/provider_keys.h"

namespace parley::engines::openai {

inline constexpr char kOurIdHeader[] = "x-client-request-id";
inline constexpr char kTheirIdHeader[] = "x-request-id";
// Unique, and to be found by the trace, where there is one.
std::string NewRequestId();
// An error with the ids of its request: ours, and the provider's where it said one.
absl::Status WithIds(const absl::Status& status, std::string_view ours, std::string_view theirs);

// A POST to the operator's own address, wherever it is, with the key of a project. Its id
// (`x-client-request-id`, as OpenAI has it: the trace's id where there is a trace) stands in every
// error, with the provider's own (`x-request-id`) where it said one.
class Request {
 public:
  Request(const std::string& base_url, const speech::ProviderKeys& keys, std::string project,
          std::string_view path);

  http::Call call;

  // There is no reply. Wherever it broke, the request is not to blame: `setting` is named when the
  // address is wrong.
  absl::Status Lost(const absl::Status& status, std::string_view setting) const;
  // A status other than 200. PermissionDenied: the project's own key was refused.
  absl::Status Refused(const http::Reply& reply) const;
  // It was given up, or was no answer.
  absl::Status Failed(const absl::Status& status) const;

 private:
  const std::string project_;
  const bool own_key_;
  const std::string id_;
};
// The text of an answer of /audio/transcriptions.
//   Unavailable  it is another kind of answer
absl::StatusOr<std::string> TranscriptOf(std::string_view body);

}  // namespace parley::engines::openai
