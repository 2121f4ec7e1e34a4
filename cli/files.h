#pragma once
#include <absl/status/statusor.h>

#include <string>

namespace parley::cli {

// The whole of a file, at most 64 MiB. NotFound: there is none that can be read.
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace parley::cli
