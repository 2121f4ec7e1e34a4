#pragma once
// What a dispatch and a worker may bring. Refusals are InvalidArgument and say what and how much.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <cstddef>
#include <string_view>

#include "job/records.h"

namespace parley::job {

inline constexpr size_t kMaxNameBytes = 256;
inline constexpr size_t kMaxMetadataBytes = 512 << 10;
inline constexpr size_t kMaxAttributesBytes = 64 << 10;
inline constexpr size_t kMaxCheckpointBytes = 256 << 10;
inline constexpr size_t kMaxSessionReportBytes = 1 << 20;
inline constexpr int kMaxSlots = 100'000;
inline constexpr size_t kMaxAgentNames = 64;
inline constexpr absl::Duration kDefaultQueueDeadline = absl::Seconds(60);
inline constexpr absl::Duration kMaxQueueDeadline = absl::Hours(24);
inline constexpr int kDefaultPriority = 5;
inline constexpr size_t kMaxCreates = 100;        // in one call
inline constexpr size_t kMaxPresenceRooms = 500;  // in one report
inline constexpr size_t kMaxPeople = 1000;        // of one room in it
// CPU load, 0 to 1, above which a worker that says nothing else gets no job. CPU is a brake only:
// slots are the capacity.
inline constexpr double kDefaultLoadThreshold = 0.9;

// Names, sizes, ranges, times. `now` only for not_before, which may be 24 h ahead.
absl::Status Validate(const NewDispatch& dispatch, absl::Time now);
absl::Status Validate(const Registration& registration);
absl::Status Validate(const RoomPresence& presence);
// `what` is the field's name.
absl::Status CheckName(std::string_view what, std::string_view name, bool required);

}  // namespace parley::job
