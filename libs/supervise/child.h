#pragma once
#include <sys/types.h>

#include <csignal>
#include <cstdint>
#include <functional>

#include "supervise/sandbox.h"
#include "supervise/zygote.h"

namespace parley::supervise {

// The descriptors a job is born with; everything else is closed.
inline constexpr int kJobSocket = 3;
// Room beside the limit of memory for what is no payload: thread stacks, allocator slack, codec
// tables.
inline constexpr int64_t kMemorySlack = 64 << 20;

// Where a job has its ends of the channels at birth.
struct JobChannels {
  int socket;
  int output;
  int report;
  int group;  // of its control group (cgroups.h); -1: it stays in the zygote's
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
