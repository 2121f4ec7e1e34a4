#pragma once
// What tests of statuses and of slow things need.
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace parley::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& value) {
  return value.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}
MATCHER_P(HasCode, code, "has code " + absl::StatusCodeToString(code)) {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code;
}
MATCHER_P(HasReason, reason, "") {
  *result_listener << StatusOf(arg).ToString() << ", reason " << ReasonOf(StatusOf(arg)).reason;
  return ReasonOf(StatusOf(arg)).reason == reason;
}

// How long tests wait for what must come: far longer than it takes on a machine with much else to
// do, since only a test that fails waits so long.
inline constexpr absl::Duration kPatience = absl::Seconds(30);

// Asks `condition` every few milliseconds until it holds; false when it did not within `limit`.
template <typename Condition>
bool Eventually(Condition condition, absl::Duration limit = kPatience) {
  const absl::Time until = absl::Now() + limit;
  while (!condition()) {
    if (absl::Now() > until) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

// The shortest of `times` runs. What a busy machine adds it adds to some of them; what the program
// waits for by itself is in every one.
template <typename Run>
absl::Duration Quickest(int times, Run run) {
  absl::Duration quickest = absl::InfiniteDuration();
  for (int i = 0; i < times; ++i) {
    const absl::Time start = absl::Now();
    run();
    quickest = std::min(quickest, absl::Now() - start);
  }
  return quickest;
}

}  // namespace parley::testing

#define PARLEY_ASSERT_OK(expression) ASSERT_THAT((expression), ::parley::testing::IsOk())
#define PARLEY_EXPECT_OK(expression) EXPECT_THAT((expression), ::parley::testing::IsOk())
#define PARLEY_ASSERT_OK_AND_ASSIGN(declaration, expression) \
  PARLEY_ASSERT_OK_AND_ASSIGN_IMPL(PARLEY_CONCAT(parley_value_, __LINE__), declaration, expression)
#define PARLEY_ASSERT_OK_AND_ASSIGN_IMPL(temporary, declaration, expression) \
  auto temporary = (expression);                                             \
  PARLEY_ASSERT_OK(temporary);                                               \
  declaration = std::move(temporary).value()
