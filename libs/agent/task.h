#pragma once
// An agent that is there for one thing, and gives the conversation back once it has it.
//
//   struct Address { std::string street, city; };
//   class AskAddress : public parley::agent::AgentTask<Address> {
//    public:
//     AskAddress() : AgentTask("Ask for street and city, and repeat them.") {
//       AddTool(parley::agent::MakeTool<AddressGiven>("address", "The user confirmed it",
//           [this](const AddressGiven& given) -> absl::StatusOr<std::string> {
//             Complete(Address{given.street, given.city});
//             return "noted";
//           }));
//     }
//     void OnEnter(AgentSession& session) override { session.GenerateReply("Ask for the address.");
//     }
//   };
//   …
//   PARLEY_ASSIGN_OR_RETURN(Address address, RunTask(session, std::make_shared<AskAddress>()));
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "agent/agent.h"
#include "base/mutex.h"

namespace parley::agent {

template <typename Result>
class AgentTask : public Agent {
 public:
  using Agent::Agent;
  using ResultType = Result;

  // Ends the task. From any thread, usually from a tool of its own; the first call counts.
  void Complete(absl::StatusOr<Result> result) {
    MutexLock lock(&mutex_);
    if (result_) return;
    result_.emplace(std::move(result));
    changed_.SignalAll();
  }
  // Blocks until Complete, at most for `timeout`, which completes it with DeadlineExceeded. Once.
  absl::StatusOr<Result> Wait(absl::Duration timeout) {
    const absl::Time end = absl::Now() + timeout;
    MutexLock lock(&mutex_);
    while (!result_) {
      const absl::Duration left = end - absl::Now();
      if (left <= absl::ZeroDuration()) {
        result_.emplace(absl::DeadlineExceededError("the task took too long"));
        break;
      }
      // An infinite wait overflows the clock below: wait in long pieces.
      changed_.WaitFor(&mutex_, std::min(left, absl::Hours(1)));
    }
    return std::move(*result_);
  }

  // A derived class that overrides one of them calls it too.
  void OnExit(AgentSession&) override { Leave(); }
  void OnSessionOver() override { Leave(); }
  // The conversation is not its own any more.
  bool left() const {
    MutexLock lock(&mutex_);
    return left_;
  }

 private:
  void Leave() {
    Complete(absl::CancelledError("the conversation went on without the task"));
    MutexLock lock(&mutex_);
    left_ = true;
  }
  mutable Mutex mutex_;
  bool left_ ABSL_GUARDED_BY(mutex_) = false;
  CondVar changed_;
  std::optional<absl::StatusOr<Result>> result_ ABSL_GUARDED_BY(mutex_);
};

// Gives the conversation to `task` and blocks until it is complete; then whoever had it goes on.
// From a tool, from OnEnter or from the entrypoint, not from a callback on the loop's thread. A
// tool's own timeout does not run meanwhile. Tasks may run tasks, eight deep.
// `config` may name engines, a greeting, a voice; name, agent, instructions and tools are the
// task's.
//   Cancelled         the session ended, or the conversation was handed over to somebody else
//   DeadlineExceeded  not complete within `timeout`
//   else              what the task completed with
template <typename Task>
absl::StatusOr<typename Task::ResultType> RunTask(
    AgentSession& session, std::shared_ptr<Task> task, AgentConfig config = {},
    absl::Duration timeout = absl::InfiniteDuration()) {
  constexpr uint32_t kNames = 16;  // more than there are tasks inside each other
  static std::atomic<uint32_t> count{0};
  config.agent = task;
  config.name = "task-" + std::to_string(count++ % kNames);
  if (absl::Status begun = session.BeginTask(std::move(config)); !begun.ok()) return begun;
  absl::StatusOr<typename Task::ResultType> result = task->Wait(timeout);
  // Who was cancelled has no conversation to give back.
  if (!task->left()) session.EndTask();
  return result;
}

}  // namespace parley::agent
