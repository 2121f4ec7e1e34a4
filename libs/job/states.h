#pragma once
// The closed lists of dispatching: states, reasons, kinds; and which transitions exist. Their texts
// are the suffixes of the enum values in protos/parley/dispatch/v1/types.proto and what the store
// writes; the numbers are the same, too.
#include <cstdint>
#include <optional>
#include <string_view>

namespace parley::job {

enum class State {
  kUnspecified = 0,
  kPending = 1,   // waits in a queue, or for its time
  kOffered = 2,   // a slot is reserved, the worker was asked
  kAssigned = 3,  // the worker was told to start it
  kRunning = 4,   // the worker said so
  kSucceeded = 5,
  kFailed = 6,
  kCancelled = 7,
};

enum class Reason {
  kUnspecified = 0,
  // SUCCEEDED
  kParticipantsLeft = 1,
  kShutdown = 2,
  kRoomClosed = 3,
  // CANCELLED
  kTerminated = 10,
  // FAILED
  kNoWorkerBeforeDeadline = 20,
  kRejected = 21,
  kStartTimeout = 22,
  kWorkerLost = 23,
  kProcessCrashed = 24,
  kOutOfMemory = 25,
  kHung = 26,
  kLimitExceeded = 27,
  kEntrypointError = 28,
  kDrainDeadline = 29,
  kDefinitionInvalid = 30,
};

enum class Type { kRoom = 1, kPublisher = 2, kParticipant = 3 };
enum class RestartPolicy { kOnFailure = 1, kNever = 2 };
// What a worker says about `(job, token)`.
enum class WordKind {
  kAccepted = 1,
  kRejected = 2,
  kStarted = 3,
  kEnded = 4,
  kReleased = 5,
  kPrepared = 6,
};

std::string_view Text(State state);    // "PENDING"
std::string_view Text(Reason reason);  // "WORKER_LOST"; "" for kUnspecified
std::string_view Text(WordKind kind);
// kUnspecified for what is not in the list.
State StateFromText(std::string_view text);
Reason ReasonFromText(std::string_view text);

// Terminal states never change.
bool IsTerminal(State state);
// A worker holds the job under the newest token.
bool IsLeased(State state);
// Whether ON_FAILURE gives a job that was lost for this reason another attempt.
bool CanRetry(Reason reason);
// The terminal state a reason belongs to; kUnspecified for kUnspecified.
State StateFor(Reason reason);
// Whether a job may go from one state to the other in one step.
bool IsTransition(State from, State to);

inline constexpr int kMaxAttempts = 3;
inline constexpr int kMaxOffers = 20;

}  // namespace parley::job
