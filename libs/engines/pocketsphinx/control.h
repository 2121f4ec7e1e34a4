#pragma once
// The socket between a gateway and its decoder program: SOCK_SEQPACKET, one message a packet, the
// stream's socket attached to kOpen.
#include <cstdint>

namespace parley::engines {

inline constexpr int kControlFd = 3;  // in the decoder program

enum class ControlType : uint32_t {
  kOpen = 1,    // to the program: fork a decoder for the attached socket
  kKill = 2,    // to the program: end the decoder of `stream`, whatever it does
  kLoaded = 3,  // from the program: models are loaded
  kBroken = 4,  // from the program: they are not; text follows the message
};

struct ControlMessage {
  ControlType type = ControlType::kKill;
  uint32_t pid = 0;  // kLoaded: of the program
  uint64_t stream = 0;
  int64_t memory_bytes = 0;   // kOpen: what the decoder may use beyond the models
  int64_t compile_cpu_s = 0;  // kOpen: CPU time for the grammar
};

}  // namespace parley::engines
