#include "job/ids.h"

#include <algorithm>
#include <cctype>

#include "base/ids.h"

namespace parley::job {

std::string NewRoutedId(std::string_view prefix, std::string_view pool_tag) {
  return NewId(prefix, pool_tag);
}

std::string_view PoolTagOf(std::string_view id, std::string_view prefix) {
  if (!id.starts_with(prefix)) return {};
  const std::string_view rest = id.substr(prefix.size());
  if (rest.size() <= kPoolTagLength || rest.size() > 64) return {};
  const bool plain =
      std::all_of(rest.begin(), rest.end(), [](unsigned char c) { return std::isalnum(c) != 0; });
  return plain ? rest.substr(0, kPoolTagLength) : std::string_view();
}

}  // namespace parley::job
