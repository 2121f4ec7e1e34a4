#pragma once
#include <prometheus/registry.h>

#include "metrics/metrics.h"

namespace parley {

struct RoomServerMetrics {  // every metric of the service, in one place
  explicit RoomServerMetrics(prometheus::Registry& registry);

  prometheus::Gauge& rooms;                  // parley_room_rooms
  prometheus::Gauge& people;                 // parley_room_participants{kind="person"}
  prometheus::Gauge& agents;                 // parley_room_participants{kind="agent"}
  prometheus::Counter& joins;                // parley_room_joins_total{outcome="admitted"}
  prometheus::Counter& joins_refused;        // …{outcome="refused"}
  prometheus::Counter& fences;               // parley_room_fences_total
  prometheus::Counter& frames_in;            // parley_room_frames_total{direction="in"}
  prometheus::Counter& frames_out;           // …{direction="out"}
  prometheus::Counter& frames_late;          // parley_room_frames_dropped_total{cause="late"}
  prometheus::Counter& frames_refused;       // …{cause="refused"}
  prometheus::Counter& batches;              // parley_room_batches_total
  prometheus::Counter& dispatches_created;   // parley_room_dispatches_total{outcome="created"}
  prometheus::Counter& dispatches_unserved;  // …{outcome="unserved"}
  prometheus::Counter& dispatches_refused;   // …{outcome="refused"}
  prometheus::Counter& dispatch_retries;     // parley_room_dispatch_retries_total
  prometheus::Gauge& dispatches_pending;     // parley_room_dispatches_pending
  prometheus::Counter& presence_reports;     // parley_room_presence_reports_total{outcome="taken"}
  prometheus::Counter& presence_failures;    // …{outcome="failed"}
  prometheus::Counter& directory_errors;     // parley_room_directory_errors_total
  prometheus::Counter& rooms_lost;           // parley_room_rooms_lost_total
  prometheus::Counter& rooms_taken_over;     // parley_room_rooms_taken_over_total
  prometheus::Histogram& admission_wait_seconds;  // parley_room_admission_seconds
};

}  // namespace parley
