#pragma once
#include <cstdint>
#include <string>

#include "session/commands.h"

namespace parley::session {

// What a session wanted, as one line without a line break: `play 3`, `item user: good day`. Two
// commands that differ in anything a listener, an engine or the room could notice have different
// lines; long contents (prompts, checkpoints) stand there as their size and a hash.
std::string Describe(const Command& command);

// The line with its time in seconds since the session began: `  12.340000 play 3`.
std::string DecisionLine(int64_t since_start_us, const Command& command);

}  // namespace parley::session
