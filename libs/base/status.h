#pragma once
// Errors inside libraries: absl::Status with a message for people and, where clients act on it, a
// machine-readable reason with metadata (sent as parley.common.v1.ErrorInfo).
//
// Aborted = lease lost, Unavailable = safe to retry, ResourceExhausted = back off,
// FailedPrecondition = ask differently.
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <fmt/format.h>

#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace parley {

struct ErrorReason {
  std::string reason;  // UPPER_SNAKE_CASE, e.g. "KEY_REUSED"
  std::map<std::string, std::string> metadata;
};

// Attaches a reason; replaces one that is there. No effect on an OK status.
absl::Status WithReason(absl::Status status, std::string_view reason,
                        const std::map<std::string, std::string>& metadata = {});
// Empty reason when none is attached.
ErrorReason ReasonOf(const absl::Status& status);
// Puts "what: " before the message; keeps code and reason. Once per layer.
absl::Status Annotate(const absl::Status& status, std::string_view what);

inline std::string_view Message(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

template <typename... Args>
absl::Status Error(absl::StatusCode code, fmt::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, fmt::format(format, std::forward<Args>(args)...));
}
#define PARLEY_ERROR_FACTORY(Name, Code)                                                           \
  template <typename... Args>                                                                      \
  absl::Status Name(fmt::format_string<Args...> format, Args&&... args) {                          \
    return absl::Status(absl::StatusCode::Code, fmt::format(format, std::forward<Args>(args)...)); \
  }
PARLEY_ERROR_FACTORY(InvalidArgument, kInvalidArgument)
PARLEY_ERROR_FACTORY(NotFound, kNotFound)
PARLEY_ERROR_FACTORY(AlreadyExists, kAlreadyExists)
PARLEY_ERROR_FACTORY(Unauthenticated, kUnauthenticated)
PARLEY_ERROR_FACTORY(PermissionDenied, kPermissionDenied)
PARLEY_ERROR_FACTORY(FailedPrecondition, kFailedPrecondition)
PARLEY_ERROR_FACTORY(ResourceExhausted, kResourceExhausted)
PARLEY_ERROR_FACTORY(Unavailable, kUnavailable)
PARLEY_ERROR_FACTORY(DeadlineExceeded, kDeadlineExceeded)
PARLEY_ERROR_FACTORY(Aborted, kAborted)
PARLEY_ERROR_FACTORY(Internal, kInternal)
PARLEY_ERROR_FACTORY(OutOfRange, kOutOfRange)
PARLEY_ERROR_FACTORY(Cancelled, kCancelled)
#undef PARLEY_ERROR_FACTORY

}  // namespace parley

#define PARLEY_CONCAT_INNER(a, b) a##b
#define PARLEY_CONCAT(a, b) PARLEY_CONCAT_INNER(a, b)
#define PARLEY_RETURN_IF_ERROR(expression)                                                    \
  do {                                                                                        \
    if (absl::Status parley_status = (expression); !parley_status.ok()) return parley_status; \
  } while (false)
// NOLINTBEGIN(bugprone-macro-parentheses): a declaration cannot stand in parentheses.
#define PARLEY_ASSIGN_OR_RETURN(declaration, expression) \
  PARLEY_ASSIGN_OR_RETURN_IMPL(PARLEY_CONCAT(parley_or_, __LINE__), declaration, expression)
#define PARLEY_ASSIGN_OR_RETURN_IMPL(temporary, declaration, expression) \
  auto temporary = (expression);                                         \
  if (!temporary.ok()) return temporary.status();                        \
  declaration = std::move(temporary).value()
// NOLINTEND(bugprone-macro-parentheses)
