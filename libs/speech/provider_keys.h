#pragma once
#include <absl/status/status.h>

#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace parley::speech {

// Keys of one provider: the operator's, and those of projects that bring their own.
struct ProviderKeys {
  std::string common;                                   // "" = none is sent
  std::map<std::string, std::string, std::less<>> own;  // by project

  ProviderKeys() = default;
  ProviderKeys(std::string key) : common(std::move(key)) {}  // NOLINT: most have one

  const std::string& Of(std::string_view project) const {
    const auto found = own.find(project);
    return found == own.end() ? common : found->second;
  }
  bool HasOwn(std::string_view project) const { return own.contains(project); }
};

// The provider does not take a project's own key: that is nobody else's outage, so no breaker opens
// (Breakers do not count this code).
inline absl::Status OwnKeyRefused(std::string_view engine, std::string_view project) {
  return WithReason(Error(absl::StatusCode::kPermissionDenied,
                          "{} refused the key of the project {}", engine, project),
                    "PROVIDER_KEY_REFUSED", {{"project", std::string(project)}});
}

}  // namespace parley::speech
