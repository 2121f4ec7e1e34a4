#pragma once
// What the three engines for OpenAI-compatible servers share.
#include <absl/status/statusor.h>

#include <string>
#include <string_view>

#include "http/client.h"

namespace parley::engines::openai {

// To the operator's own address, wherever it is.
http::Call Post(const std::string& base_url, const std::string& key, std::string_view path);
// The call got no reply. Wherever it broke, the request is not to blame: `setting` is named when
// the address is wrong.
absl::Status OnTheWay(const absl::Status& status, std::string_view setting);
// The text of an answer of /audio/transcriptions.
//   Unavailable  it is another kind of answer
absl::StatusOr<std::string> TranscriptOf(std::string_view body);
// What a status other than 200 means.
absl::Status ErrorOf(const http::Reply& reply);

}  // namespace parley::engines::openai
