#pragma once
// Ids of dispatching carry the number of their pool, three base-62 characters after the prefix
// (AJ_003…), and so route themselves: the pool's keys are found from the id alone.
#include <string>
#include <string_view>

namespace parley::job {

inline constexpr size_t kPoolTagLength = 3;

// "AJ_" + tag + 12 random characters. `prefix` is one of base/ids.h.
std::string NewRoutedId(std::string_view prefix, std::string_view pool_tag);
// "003" of "AJ_003…"; empty when `id` is not an id with this prefix and a tag.
std::string_view PoolTagOf(std::string_view id, std::string_view prefix);

}  // namespace parley::job
