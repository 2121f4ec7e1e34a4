#include "agent/job/hooks.h"

#include <exception>
#include <thread>
#include <utility>

namespace parley::agent {

void AgentHooks::Guard(std::string_view what, const std::function<void()>& run) const {
  try {
    run();
  } catch (const std::exception& error) {
    log_.Error("a hook of the agent threw",
               {{"hook", what}, {"error", std::string_view(error.what())}});
  } catch (...) {
    log_.Error("a hook of the agent threw", {{"hook", what}});
  }
}

void AgentHooks::Enter() {
  std::thread([self = shared_from_this()] {
    self->Guard("OnEnter", [&self] { self->agent_->OnEnter(*self->session_); });
  }).detach();
}

void AgentHooks::Exit() {
  Guard("OnExit", [this] { agent_->OnExit(*session_); });
}

void AgentHooks::ExitSoon() {
  std::thread([self = shared_from_this()] { self->Exit(); }).detach();
}

void AgentHooks::SessionOver() {
  Guard("OnSessionOver", [this] { agent_->OnSessionOver(); });
}

void AgentHooks::Review(uint64_t review, std::string text, Answer answer) {
  {
    MutexLock lock(&mutex_);
    next_ = Turn{review, std::move(text), std::move(answer)};
    if (std::exchange(reviewing_, true)) return;
  }
  std::thread([self = shared_from_this()] { self->ReviewAll(); }).detach();
}

void AgentHooks::ReviewAll() {
  while (true) {
    Turn turn;
    {
      MutexLock lock(&mutex_);
      reviewing_ = next_.has_value();
      if (!reviewing_) return;
      turn = *std::exchange(next_, std::nullopt);
    }
    UserTurn user{.text = turn.text};
    Guard("OnUserTurnCompleted", [&] { agent_->OnUserTurnCompleted(*session_, user); });
    turn.answer({turn.review, std::move(user.text), std::move(user.instructions), user.answer});
  }
}

}  // namespace parley::agent
