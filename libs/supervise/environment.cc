#include "supervise/environment.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace parley::supervise {

bool LooksSecret(std::string_view name) {
  for (std::string_view part : {"SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL"}) {
    if (name.find(part) != std::string_view::npos) return true;
  }
  return name.ends_with("_KEY") || name.ends_with("APIKEY");
}

void WipeSecrets(const std::vector<std::string>& keep) {
  std::vector<std::string> names;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    char* const equals = std::strchr(*entry, '=');
    if (equals == nullptr) continue;
    const std::string name(*entry, static_cast<size_t>(equals - *entry));
    if (!LooksSecret(name) || std::find(keep.begin(), keep.end(), name) != keep.end()) continue;
    explicit_bzero(equals + 1, std::strlen(equals + 1));
    names.push_back(name);
  }
  for (const std::string& name : names) unsetenv(name.c_str());
}

}  // namespace parley::supervise
