#pragma once
#include <absl/status/statusor.h>

#include <string>

#include "api.h"

namespace parley::cli {

// Registers the definition in a file. The answer has id, name, version, and `created`: false when
// this content was the newest version already.
absl::StatusOr<Json> RegisterFile(Api& api, const std::string& path);

}  // namespace parley::cli
