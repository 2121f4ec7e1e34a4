#pragma once
// An agent's hooks, on threads of their own: the loop waits for none of them.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "agent/agent.h"
#include "base/mutex.h"
#include "log/log.h"
#include "session/events.h"

namespace parley::agent {

// Thread-safe. Owned by a shared_ptr, which the threads share.
class AgentHooks : public std::enable_shared_from_this<AgentHooks> {
 public:
  using Answer = std::function<void(session::event::TurnReviewed)>;

  AgentHooks(std::shared_ptr<Agent> agent, std::shared_ptr<AgentSession> session, log::Logger log)
      : agent_(std::move(agent)), session_(std::move(session)), log_(std::move(log)) {}

  // Does not wait.
  void Enter();
  // On the caller's thread: returns when the hook has.
  void Exit();
  // Does not wait.
  void ExitSoon();
  // On the loop's thread.
  void SessionOver();
  // Does not wait; `answer` is called on the hook's thread. While an earlier turn is being looked
  // at only the newest waits: nobody wants the others any more.
  void Review(uint64_t review, std::string text, Answer answer);

 private:
  struct Turn {
    uint64_t review = 0;
    std::string text;
    Answer answer;
  };
  void ReviewAll();
  void Guard(std::string_view what, const std::function<void()>& run) const;

  const std::shared_ptr<Agent> agent_;
  const std::shared_ptr<AgentSession> session_;
  const log::Logger log_;
  Mutex mutex_;
  bool reviewing_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Turn> next_ ABSL_GUARDED_BY(mutex_);
};

using HooksByName = std::map<std::string, std::shared_ptr<AgentHooks>>;

}  // namespace parley::agent
