// A scenario is read without harm, and one that can be read is told without end only as long as it
// says.
#include <cstdint>
#include <string_view>

#include "rehearsal/stage.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto scenario = parley::rehearsal::ParseScenario(text, "fuzz.yaml");
  if (!scenario.ok()) return 0;
  const auto agent = parley::rehearsal::AgentOf(*scenario);
  if (!agent.ok()) return 0;
  const auto cast = parley::rehearsal::CastOf(*agent);
  if (!cast.ok()) return 0;
  if (scenario->end_us > 30'000'000) scenario->end_us = 30'000'000;
  parley::rehearsal::Perform(*scenario, *cast);
  return 0;
}
