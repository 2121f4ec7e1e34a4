#pragma once
#include <absl/time/time.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace parley {

std::vector<std::string> Split(std::string_view text, char separator);
std::string_view Trim(std::string_view text);
std::string ToLower(std::string_view text);  // ASCII
bool IsValidUtf8(std::string_view text);

// "500ms", "2s", "1.5m", "1h", "0"; nothing else.
std::optional<absl::Duration> ParseDuration(std::string_view text);
std::string DurationText(absl::Duration duration);  // what ParseDuration reads
// "64KiB", "256MiB", "1GiB", "4096" (bytes).
std::optional<int64_t> ParseSize(std::string_view text);
std::string SizeText(int64_t bytes);

}  // namespace parley
