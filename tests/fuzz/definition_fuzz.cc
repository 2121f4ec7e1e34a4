// Definitions from strangers: no crash, and what is taken reads back as itself.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "registry/definition.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::registry;
  const auto definition = ParseDefinition({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!definition.ok()) return 0;
  const std::string json = ToJson(*definition);
  const auto again = FromJson(json);
  if (!again.ok() || ToJson(*again) != json) std::abort();
  return 0;
}
