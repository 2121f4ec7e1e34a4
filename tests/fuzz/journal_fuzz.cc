// A broker's journal as a crash, a full disk or a foreign hand may have left it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "job_redis/journal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  size_t good = 0;
  const auto facts = parley::job::ParseJournal(bytes, &good);
  if (good > size || (facts.empty() != (good == 0))) std::abort();
  for (const auto& fact : facts) {
    if (fact.parts.empty()) std::abort();
  }
  // What is good stays so, whatever follows it.
  size_t again = 0;
  if (parley::job::ParseJournal(bytes.substr(0, good), &again).size() != facts.size()) std::abort();
  if (again != good) std::abort();
  return 0;
}
