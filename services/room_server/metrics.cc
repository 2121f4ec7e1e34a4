#include "room_server/metrics.h"

namespace parley {
namespace {

constexpr auto kParticipants = "parley_room_participants";
constexpr auto kParticipantsHelp = "Participants in the rooms of this server";
constexpr auto kJoins = "parley_room_joins_total";
constexpr auto kJoinsHelp = "Participants admitted or refused";
constexpr auto kFrames = "parley_room_frames_total";
constexpr auto kFramesHelp = "Audio frames received from publishers and sent to listeners";
constexpr auto kDropped = "parley_room_frames_dropped_total";
constexpr auto kDroppedHelp = "Audio frames not sent: late for a slow listener, or not acceptable";
constexpr auto kDispatches = "parley_room_dispatches_total";
constexpr auto kDispatchesHelp = "Dispatches that rooms asked for";

}  // namespace

RoomServerMetrics::RoomServerMetrics(prometheus::Registry& registry)
    : rooms(metrics::Gauge(registry, "parley_room_rooms", "Rooms on this server")),
      people(metrics::Gauge(registry, kParticipants, kParticipantsHelp, {{"kind", "person"}})),
      agents(metrics::Gauge(registry, kParticipants, kParticipantsHelp, {{"kind", "agent"}})),
      joins(metrics::Counter(registry, kJoins, kJoinsHelp, {{"outcome", "admitted"}})),
      joins_refused(metrics::Counter(registry, kJoins, kJoinsHelp, {{"outcome", "refused"}})),
      fences(metrics::Counter(registry, "parley_room_fences_total", "Fences set by brokers")),
      frames_in(metrics::Counter(registry, kFrames, kFramesHelp, {{"direction", "in"}})),
      frames_out(metrics::Counter(registry, kFrames, kFramesHelp, {{"direction", "out"}})),
      frames_late(metrics::Counter(registry, kDropped, kDroppedHelp, {{"cause", "late"}})),
      frames_refused(metrics::Counter(registry, kDropped, kDroppedHelp, {{"cause", "refused"}})),
      batches(metrics::Counter(registry, "parley_room_batches_total",
                               "Frame batches sent to agent servers")),
      dispatches_created(
          metrics::Counter(registry, kDispatches, kDispatchesHelp, {{"outcome", "created"}})),
      dispatches_unserved(
          metrics::Counter(registry, kDispatches, kDispatchesHelp, {{"outcome", "unserved"}})),
      dispatches_refused(
          metrics::Counter(registry, kDispatches, kDispatchesHelp, {{"outcome", "refused"}})),
      dispatch_retries(metrics::Counter(registry, "parley_room_dispatch_retries_total",
                                        "Dispatches asked for again after a failure")),
      dispatches_pending(metrics::Gauge(registry, "parley_room_dispatches_pending",
                                        "Dispatches that no broker has confirmed yet")),
      presence_reports(metrics::Counter(registry, "parley_room_presence_reports_total",
                                        "Reports to the broker of who is in which room",
                                        {{"outcome", "taken"}})),
      presence_failures(metrics::Counter(registry, "parley_room_presence_reports_total",
                                         "Reports to the broker of who is in which room",
                                         {{"outcome", "failed"}})),
      directory_errors(metrics::Counter(registry, "parley_room_directory_errors_total",
                                        "Failed calls to the directory of rooms")),
      rooms_lost(metrics::Counter(registry, "parley_room_rooms_lost_total",
                                  "Rooms closed because another replica holds them")),
      rooms_taken_over(metrics::Counter(registry, "parley_room_rooms_taken_over_total",
                                        "Rooms that go on here after their replica died")),
      admission_wait_seconds(metrics::Histogram(registry, "parley_room_admission_seconds",
                                                "From a join's arrival to its answer")) {}

}  // namespace parley
