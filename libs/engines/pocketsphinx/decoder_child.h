#pragma once
#include <cstdint>

#include "engines/pocketsphinx/recogniser.h"

namespace parley::engines {

struct DecoderLimits {
  int64_t memory_bytes = 0;   // address space beyond what the models take
  int64_t compile_cpu_s = 0;  // CPU time until ready
};

// The life of one decoder process, right after the fork: limits itself, compiles, decodes what
// comes in over `fd`, and never returns. Dies with its parent `parent_pid`. A broken limit or a
// crash is said over `fd` before the end.
[[noreturn]] void RunDecoder(Recogniser& recogniser, int fd, const DecoderLimits& limits,
                             int parent_pid);

}  // namespace parley::engines
