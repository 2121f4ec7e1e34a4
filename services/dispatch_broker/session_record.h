#pragma once
#include <string>

#include "job/records.h"

namespace parley {

// What a session record says before anything has run. Dispatches, jobs and assignments name these
// facts alike, but for their own id.
template <typename Source>
job::SessionRecord SessionOf(const Source& source, const std::string& dispatch_id) {
  job::SessionRecord record;
  record.id = source.session_id;
  record.project = source.project;
  record.room = source.room;
  record.dispatch_id = dispatch_id;
  record.agent_name = source.agent_name;
  record.agent_id = source.agent_id;
  record.agent_version = source.agent_version;
  record.create_time = source.create_time;
  return record;
}

}  // namespace parley
