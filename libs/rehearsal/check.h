#pragma once
#include "rehearsal/stage.h"

namespace parley::rehearsal {

// Adds to `outcome.failures` what `scenario` expected and the outcome does not hold. Expectations
// without `at` and `count` are met in the order in which they stand.
void Check(const Scenario& scenario, Outcome& outcome);

}  // namespace parley::rehearsal
