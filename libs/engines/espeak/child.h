#pragma once
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "speech/cancel.h"

namespace parley::engines {

// Runs a program with `input` on its standard input and hands what it prints to `on_output` as it
// comes; false from there stops it. No shell is involved. Blocks until it ended, at most `timeout`;
// it is killed when cancelled or late, and never outlives the call.
//   Unavailable       it cannot be started, or ended with an error: the first line it wrote about
//   it DeadlineExceeded, Cancelled
absl::Status RunChild(const std::vector<std::string>& arguments, std::string_view input,
                      absl::Duration timeout, const speech::Cancellation& cancel,
                      const std::function<bool(std::string_view)>& on_output);

}  // namespace parley::engines
