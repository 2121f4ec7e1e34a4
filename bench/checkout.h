#pragma once
#include <absl/status/statusor.h>

#include <cstdlib>
#include <string>

#include "base/status.h"

namespace parley::bench {

// examples/`name` of the checkout.
//   FailedPrecondition  nobody says where that is
inline absl::StatusOr<std::string> Example(const std::string& name) {
  const char* const checkout = std::getenv("PARLEY_SOURCE_DIR");
  if (checkout == nullptr || *checkout == '\0') {
    return FailedPrecondition(
        "this reads examples/{}: name the checkout in PARLEY_SOURCE_DIR, or run it by "
        "scripts/bench",
        name);
  }
  return std::string(checkout) + "/examples/" + name;
}

}  // namespace parley::bench
