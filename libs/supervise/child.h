#pragma once
#include <sys/types.h>

#include <csignal>
#include <functional>

#include "supervise/sandbox.h"
#include "supervise/zygote.h"

namespace parley::supervise {

// The descriptors a job is born with; everything else is closed.
inline constexpr int kJobSocket = 3;

// Where a job has its ends of the channels at birth.
struct JobChannels {
  int socket;
  int output;
  int report;
};

// Lets a job's thread write its stack to standard error.
inline constexpr int kStackSignal = SIGUSR2;

// The first and last function of a job process, in the fresh fork: gives up what was the zygote's,
// puts on limits and filter, runs `run_job`, exits. `limits.memory_bytes` is on top of what the
// zygote uses.
[[noreturn]] void BecomeJob(pid_t zygote, const JobChannels& channels, const JobLimits& limits,
                            const Sandbox& sandbox, const std::function<int(int)>& run_job);

// Bytes of private writable memory of this process (what RLIMIT_DATA counts); 0 when unknown.
int64_t DataBytes();

}  // namespace parley::supervise
