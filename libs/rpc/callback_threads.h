#pragma once

namespace parley::rpc {

// gRPC runs reactions on two threads or more, which hand the one poll of all sockets to each other
// with every event: a futex and a change of threads each time. While events are many, and not too
// many for one thread, the others are kept waiting, and looked after twice a second and more. While
// they are few all of them stay: one that saw nothing for a second naps for 100 ms.
// Both thread-safe.

// Before the first channel or server of a process. Idempotent.
void PrepareCallbackThreads();
// By each reaction of a stream, at its beginning: it costs nanoseconds, and now and then starts a
// call that leads nowhere and keeps a thread.
void CountReaction();

}  // namespace parley::rpc
