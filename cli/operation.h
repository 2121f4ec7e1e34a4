#pragma once
// Commands for those who run a deployment.
#include "command.h"

namespace parley::cli {

void AddAutoscale(CLI::App& root, Command& command);
void AddDoctor(CLI::App& root, Command& command);

}  // namespace parley::cli
