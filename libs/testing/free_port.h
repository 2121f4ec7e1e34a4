#pragma once

namespace parley::testing {

// A TCP port of 127.0.0.1 on which nobody listens, for a program that cannot choose one and say so.
// It is below those that the kernel gives to connections and to whoever asks for any: between this
// answer and the program's bind nobody is given it. 0: there is none.
int FreePort();

}  // namespace parley::testing
