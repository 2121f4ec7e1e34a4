#include "job/states.h"

#include <array>
#include <utility>

namespace parley::job {
namespace {

constexpr std::pair<State, std::string_view> kStates[] = {
    {State::kPending, "PENDING"},     {State::kOffered, "OFFERED"},
    {State::kAssigned, "ASSIGNED"},   {State::kRunning, "RUNNING"},
    {State::kSucceeded, "SUCCEEDED"}, {State::kFailed, "FAILED"},
    {State::kCancelled, "CANCELLED"},
};

struct ReasonRow {
  Reason reason;
  std::string_view text;
  State state;
  bool retry;
};
constexpr ReasonRow kReasons[] = {
    {Reason::kParticipantsLeft, "PARTICIPANTS_LEFT", State::kSucceeded, false},
    {Reason::kShutdown, "SHUTDOWN", State::kSucceeded, false},
    {Reason::kRoomClosed, "ROOM_CLOSED", State::kSucceeded, false},
    {Reason::kTerminated, "TERMINATED", State::kCancelled, false},
    {Reason::kNoWorkerBeforeDeadline, "NO_WORKER_BEFORE_DEADLINE", State::kFailed, false},
    {Reason::kRejected, "REJECTED", State::kFailed, false},
    {Reason::kStartTimeout, "START_TIMEOUT", State::kFailed, true},
    {Reason::kWorkerLost, "WORKER_LOST", State::kFailed, true},
    {Reason::kProcessCrashed, "PROCESS_CRASHED", State::kFailed, true},
    {Reason::kOutOfMemory, "OUT_OF_MEMORY", State::kFailed, true},
    {Reason::kHung, "HUNG", State::kFailed, true},
    {Reason::kLimitExceeded, "LIMIT_EXCEEDED", State::kFailed, true},
    {Reason::kEntrypointError, "ENTRYPOINT_ERROR", State::kFailed, true},
    {Reason::kDrainDeadline, "DRAIN_DEADLINE", State::kFailed, true},
    {Reason::kDefinitionInvalid, "DEFINITION_INVALID", State::kFailed, false},
};

const ReasonRow* RowOf(Reason reason) {
  for (const ReasonRow& row : kReasons) {
    if (row.reason == reason) return &row;
  }
  return nullptr;
}

}  // namespace

std::string_view Text(State state) {
  for (const auto& [value, text] : kStates) {
    if (value == state) return text;
  }
  return "";
}

std::string_view Text(Reason reason) {
  const ReasonRow* row = RowOf(reason);
  return row == nullptr ? "" : row->text;
}

std::string_view Text(WordKind kind) {
  switch (kind) {
    case WordKind::kAccepted:
      return "ACCEPTED";
    case WordKind::kRejected:
      return "REJECTED";
    case WordKind::kStarted:
      return "STARTED";
    case WordKind::kEnded:
      return "ENDED";
    case WordKind::kReleased:
      return "RELEASED";
    case WordKind::kPrepared:
      return "PREPARED";
  }
  return "";
}

State StateFromText(std::string_view text) {
  for (const auto& [value, name] : kStates) {
    if (name == text) return value;
  }
  return State::kUnspecified;
}

Reason ReasonFromText(std::string_view text) {
  for (const ReasonRow& row : kReasons) {
    if (row.text == text) return row.reason;
  }
  return Reason::kUnspecified;
}

bool IsTerminal(State state) {
  return state == State::kSucceeded || state == State::kFailed || state == State::kCancelled;
}

bool IsLeased(State state) {
  return state == State::kOffered || state == State::kAssigned || state == State::kRunning;
}

bool CanRetry(Reason reason) {
  const ReasonRow* row = RowOf(reason);
  return row != nullptr && row->retry;
}

State StateFor(Reason reason) {
  const ReasonRow* row = RowOf(reason);
  return row == nullptr ? State::kUnspecified : row->state;
}

bool IsTransition(State from, State to) {
  if (from == State::kUnspecified || IsTerminal(from) || to == State::kUnspecified) return false;
  switch (to) {
    case State::kPending:
      return IsLeased(from);
    case State::kOffered:
      return from == State::kPending;
    case State::kAssigned:  // at once when the worker takes all; a successor whose holder was lost
      return from == State::kPending || from == State::kOffered || from == State::kRunning;
    case State::kRunning:  // words are cumulative; reports take jobs back; successors take over
      return true;
    default:
      return true;
  }
}

}  // namespace parley::job
