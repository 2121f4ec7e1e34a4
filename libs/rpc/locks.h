#pragma once

namespace parley::rpc {

// Once per process, before its first channel or server: Debian builds abseil with the deadlock
// detector of its mutexes on. gRPC takes them for every message, the detector keeps a graph of all
// of them under one lock, and aborts the process where it suspects a cycle. That is for tests.
void TurnOffDeadlockDetector();

}  // namespace parley::rpc
