#include "files.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/status.h"

namespace parley::cli {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  constexpr uintmax_t kLargest = 64 << 20;
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error) &&
      std::filesystem::file_size(path, error) > kLargest)
    return InvalidArgument("{} is larger than 64 MiB", path);
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path, error))
    return NotFound("there is no file {} that can be read", path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace parley::cli
