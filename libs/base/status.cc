#include "base/status.h"

#include <absl/strings/cord.h>

namespace parley {
namespace {

// Reason and metadata travel in one payload: fields joined by the unit separator, which no reason
// contains.
constexpr char kPayloadUrl[] = "parley/reason";
constexpr char kSeparator = '\x1f';

}  // namespace

absl::Status WithReason(absl::Status status, std::string_view reason,
                        const std::map<std::string, std::string>& metadata) {
  if (status.ok()) return status;
  std::string packed(reason);
  for (const auto& [key, value] : metadata) {
    packed += kSeparator;
    packed += key;
    packed += kSeparator;
    packed += value;
  }
  status.SetPayload(kPayloadUrl, absl::Cord(packed));
  return status;
}

ErrorReason ReasonOf(const absl::Status& status) {
  ErrorReason result;
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload) return result;
  const std::string packed(*payload);
  std::vector<std::string> parts;
  size_t start = 0;
  while (true) {
    const size_t end = packed.find(kSeparator, start);
    parts.push_back(packed.substr(start, end == std::string::npos ? end : end - start));
    if (end == std::string::npos) break;
    start = end + 1;
  }
  result.reason = parts[0];
  for (size_t i = 1; i + 1 < parts.size(); i += 2) result.metadata[parts[i]] = parts[i + 1];
  return result;
}

absl::Status Annotate(const absl::Status& status, std::string_view what) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), fmt::format("{}: {}", what, Message(status)));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace parley
