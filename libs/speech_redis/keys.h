#pragma once
// Every key of the gateways in Redis. KEYS[1] of a script ends in ":meta"; what else it touches
// begins with what stands before that, and shares its hash tag.
#include <string>
#include <string_view>

namespace parley::speech_redis {

// Hash: run (of the server that knows all), hold (ms of its clock before which nothing is granted),
// virtual (time). Beside it: book (hash replica|project → what it holds), leases (zset), requests
// and tokens (hashes, by second), virtual (hash, by project).
inline std::string BudgetKey(std::string_view provider) {
  return "parley:{budget:" + std::string(provider) + "}:meta";
}
// Hash: replica → number of its last charge. Beside it: day:N (days since 1970) and session:ID,
// hashes of units.
inline std::string SpendKey(std::string_view project) {
  return "parley:{spend:" + std::string(project) + "}:meta";
}
// Hash: engine → until when it is left alone, its cool-down, until when somebody probes it.
inline std::string HealthKey(std::string_view kind) {
  return "parley:{health:" + std::string(kind) + "}:meta";
}
// Hash: generation, last (id given). Beside it: GENERATION:PHRASE, hashes.
inline std::string VoiceKey(std::string_view project) {
  return "parley:{voice:" + std::string(project) + "}:meta";
}

}  // namespace parley::speech_redis
