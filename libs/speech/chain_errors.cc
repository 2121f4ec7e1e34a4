#include "speech/chain_errors.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/status.h"

namespace parley::speech {

bool ChainErrors::Add(std::string_view engine, const absl::Status& status) {
  errors_.emplace_back(engine, status);
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kCancelled:
      return false;
    case absl::StatusCode::kNotFound:
      // An engine that this server does not have is what chains are for; a voice that an engine
      // does not have is a mistake.
      return ReasonOf(status).reason == "UNKNOWN_ENGINE";
    default:
      return true;
  }
}

absl::Status ChainErrors::Result() const {
  if (errors_.empty()) return InvalidArgument("the chain names no engine");
  const auto& [engine, last] = errors_.back();
  // One engine, or the caller's own mistake: as it is.
  const bool same = std::all_of(errors_.begin(), errors_.end(), [&last = last](const auto& error) {
    return error.second.code() == last.code();
  });
  if (errors_.size() == 1) return last;
  if (same || absl::IsInvalidArgument(last) || absl::IsFailedPrecondition(last)) {
    const ErrorReason reason = ReasonOf(last);
    absl::Status all = Error(last.code(), "{}", same ? Text() : std::string(Message(last)));
    return reason.reason.empty() ? all : WithReason(std::move(all), reason.reason, reason.metadata);
  }
  return Unavailable("all engines failed: {}", Text());
}

std::string ChainErrors::Text() const {
  std::string text;
  for (const auto& [engine, status] : errors_)
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", engine, Message(status));
  return text;
}

}  // namespace parley::speech
