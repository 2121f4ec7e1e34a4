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
// True when brackets and braces outside JSON strings nest at most `depth` deep. To be asked before
// a JSON parser sees bytes from outside: some of what follows parsing recurses.
bool JsonNestsWithin(std::string_view text, int depth);

// "500ms", "2s", "1.5m", "1h", "0"; nothing else.
std::optional<absl::Duration> ParseDuration(std::string_view text);
std::string DurationText(absl::Duration duration);  // what ParseDuration reads
// "64KiB", "256MiB", "1GiB", "4096" (bytes).
std::optional<int64_t> ParseSize(std::string_view text);
std::string SizeText(int64_t bytes);

}  // namespace parley
