#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace parley::supervise {

// Does the name of this variable look like a secret's?
bool LooksSecret(std::string_view name);

// Wipes the variables that look like secrets, but those in `keep`: out of the environment and out
// of this process's memory, so that /proc/self/environ and forks have them no more. Single-threaded
// processes only.
void WipeSecrets(const std::vector<std::string>& keep);

}  // namespace parley::supervise
