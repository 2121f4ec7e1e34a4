#pragma once
// What jobs wrote and logged, kept for a while on this machine's disk: a ring for each job, and a
// bound on all of them. Gone with the agent server; its own log has the same lines.
#include <absl/status/status.h>

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/server/metrics.h"
#include "base/executor.h"
#include "event/loop.h"
#include "log/log.h"
#include "parley/dispatch/v1/worker.pb.h"

namespace parley::agent {

// The files. Blocks on the disk; one thread at a time.
class JobLogFiles {
 public:
  struct Limits {
    int64_t job_bytes = 1 << 20;     // of one job: the newest half of it is always there
    int64_t total_bytes = 64 << 20;  // of all; the jobs that wrote last stay
    size_t jobs = 5000;
  };
  JobLogFiles(std::string folder, Limits limits);

  // Makes the folder, for this user alone.
  absl::Status Open();
  // `frames`: lines as AppendFrame (job/frame.h) puts them; a quarter of job_bytes at most. Ids
  // that are no file names are refused with InvalidArgument.
  absl::Status Append(const std::string& job_id, std::string_view frames);
  // Lines with a higher number than `after`, oldest first. NotFound: nothing is kept of this job.
  absl::StatusOr<std::vector<parley::dispatch::v1::JobLogLine>> Read(const std::string& job_id,
                                                                     int64_t after) const;
  // Removes all files and the folder.
  void Clear();
  int64_t bytes() const { return bytes_; }

 private:
  struct Kept {
    int64_t bytes = 0;  // in the file being written
    int64_t older = 0;  // in the file before it
    std::list<std::string>::iterator place;
  };
  std::string PathOf(const std::string& job_id) const;
  void MakeRoom();

  const std::string folder_;
  const Limits limits_;
  int64_t bytes_ = 0;
  std::map<std::string, Kept> jobs_;
  std::list<std::string> order_;  // the job that wrote last stands last
};

// Loop thread only; never blocks, a thread of its own writes and reads.
class JobLogs {
 public:
  using JobLogLine = parley::dispatch::v1::JobLogLine;
  // Takes pieces of an answer; false ends it.
  using Sink = std::function<bool(parley::dispatch::v1::ConnectRequest)>;

  // `folder`: where the files go; empty: a new one under TMPDIR, removed at the end.
  JobLogs(std::shared_ptr<event::Loop> loop, std::string folder, AgentServerMetrics& metrics,
          log::Logger log);
  ~JobLogs();

  // Errors: the folder cannot be made or written.
  absl::Status Open();
  // Numbers the line and keeps it. Lines that come faster than the disk takes them are dropped and
  // counted.
  void Append(const std::string& job_id, JobLogLine line);
  // The job's attempt is over: who follows it is told, after its last line.
  void Ended(const std::string& job_id);
  // Answers `request` through `sink`. `live`: more lines may come.
  void Read(const parley::dispatch::v1::ReadLogs& request, bool live, Sink sink);
  // The stream of all requests broke.
  void ForgetReaders();

 private:
  struct Reader {
    std::string job_id;
    int64_t sent = 0;
    bool follow = false;
    bool caught_up = false;  // has what was on the disk when it came
    bool over = false;       // the job ended meanwhile
    Sink sink;
  };
  using Lines = std::vector<std::pair<std::string, JobLogLine>>;

  void Flush();
  void Written(const Lines& lines);
  void CaughtUp(uint64_t request, absl::StatusOr<std::vector<JobLogLine>> lines);
  // False when the reader is gone.
  bool Give(uint64_t request, Reader& reader, std::vector<JobLogLine> lines, bool end,
            std::string_view error = {});

  const std::shared_ptr<event::Loop> loop_;
  AgentServerMetrics& metrics_;
  const log::Logger log_;
  const bool temporary_;
  std::string folder_;
  std::shared_ptr<JobLogFiles> files_;  // used on writer_ only
  event::Timer timer_;
  bool flushing_ = false;
  Lines pending_;
  int64_t last_seq_ = 0;
  std::map<uint64_t, Reader> readers_;
  std::shared_ptr<JobLogs*> self_ = std::make_shared<JobLogs*>(this);
  Executor writer_;
};

}  // namespace parley::agent
