#pragma once
// `dev` of an agent program: the program runs as a child, and again whenever its file is rebuilt.

namespace parley::agent {

// Runs this program with the same arguments and PARLEY_DEV_CHILD=1 until SIGINT or SIGTERM. When
// its file has changed and a new one stands (it runs for a second), the old one is asked to drain:
// it takes no more jobs and ends with its last one. One that does not stand leaves the old one in
// charge. Asked to stop, all get 5 s and then a second, sharper signal. Single-threaded; call it
// first thing in main(). Returns the exit code: that of a program that ends by itself, else 0.
int RunReloading(char** argv);

// Whether this process is such a child.
bool IsReloadingChild();

}  // namespace parley::agent
