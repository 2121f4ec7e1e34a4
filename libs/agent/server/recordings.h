#pragma once
// Recordings of calls, as files of this user alone, for calls whose definition asks for them and
// where the operator named a folder:
//   PROJECT.SESSION.TOKEN.jsonl   the session, for `parley replay`
//   PROJECT.SESSION.TOKEN.ogg     the sound: Opus, the caller left, the agent right
// One pair for each attempt. Whatever ends a process, a file holds all but the last two seconds.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/server/job_table.h"
#include "agent/server/metrics.h"
#include "audio/ogg_opus.h"
#include "base/executor.h"
#include "event/loop.h"
#include "log/log.h"
#include "parley/job/v1/job.pb.h"

namespace parley::agent {

// The files. Blocks on the disk; one thread at a time.
class RecordingFiles {
 public:
  // `max_bytes`: of all files; what is over it is refused, nothing is removed for it.
  RecordingFiles(std::string folder, int64_t max_bytes);
  ~RecordingFiles();

  // Makes the folder, for this user alone.
  //   FailedPrecondition  it cannot be made or written
  absl::Status Open();
  // `name`: "PROJECT.SESSION.TOKEN", see NameOf.
  //   ResourceExhausted  the folder is full;  Unavailable  the disk
  absl::Status Append(const std::string& name, const parley::job::v1::Recording& recording);
  // The attempt is over: closes its files, which end as they should.
  absl::Status End(const std::string& name);
  // Removes what is kept of the session, whoever wrote it.
  void Erase(std::string_view session_id);

  struct Held {
    std::string project;
    std::string session_id;
    absl::Time written;  // last
  };
  // What is kept of sessions of which nothing is being written, at most `limit`, beginning behind
  // `after` (a session's id), in the order of ids.
  std::vector<Held> List(std::string_view after, size_t limit) const;
  int64_t bytes() const { return bytes_; }

  // Empty where one of them cannot be part of a file's name.
  static std::string NameOf(std::string_view project, std::string_view session_id, uint64_t token);

 private:
  struct Writing;
  absl::Status Write(const std::string& name, const char* kind, std::string_view bytes);

  const std::string folder_;
  const int64_t max_bytes_;
  int64_t bytes_ = 0;
  std::map<std::string, std::unique_ptr<Writing>> writing_;  // by name
};

// Loop thread only; never blocks, a thread of its own writes.
class Recordings {
 public:
  using Held = RecordingFiles::Held;

  // Without a folder nothing is kept.
  Recordings(std::shared_ptr<event::Loop> loop, std::string folder, int64_t max_bytes,
             AgentServerMetrics& metrics, log::Logger log);
  ~Recordings();

  absl::Status Open();
  bool kept() const { return files_ != nullptr; }
  // What comes faster than the disk takes it is dropped and counted.
  void Append(std::string_view project, std::string_view session_id, const JobKey& key,
              const parley::job::v1::Recording& recording);
  void End(std::string_view project, std::string_view session_id, const JobKey& key);
  void Erase(std::vector<std::string> session_ids);
  // Calls `listed` on the loop with the next sessions that are kept and over; the next call gives
  // the ones behind them. Not at all where nothing is kept.
  void List(std::function<void(std::vector<Held>)> listed);

 private:
  const std::shared_ptr<event::Loop> loop_;
  AgentServerMetrics& metrics_;
  const log::Logger log_;
  std::shared_ptr<RecordingFiles> files_;  // used on writer_ only; null: nothing is kept
  size_t waiting_bytes_ = 0;
  bool told_ = false;   // that something was lost
  std::string listed_;  // up to here
  bool listing_ = false;
  std::shared_ptr<Recordings*> self_ = std::make_shared<Recordings*>(this);
  Executor writer_;
};

}  // namespace parley::agent
