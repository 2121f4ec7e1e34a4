#pragma once

namespace parley::supervise {

// Split() leaves the server in a process group of its own, which may not read from its terminal:
// asks for it. No effect where standard input is none.
void TakeTerminal();

}  // namespace parley::supervise
