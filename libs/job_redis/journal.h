#pragma once
// What a broker acknowledged lately, on its own disk: the ring outlives the process.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"

namespace parley::job {

// One fact of the ring (ring.h).
struct JournalFact {
  absl::Time time;
  std::string pool;
  std::vector<std::string> parts;
};

// The facts at the beginning of `bytes`, up to the first that is torn or damaged; `*good`: how many
// bytes they are.
std::vector<JournalFact> ParseJournal(std::string_view bytes, size_t* good);

// Files `journal-N` in a folder of its own, appended to; a new one every 30 s or 64 MiB, and those
// whose facts are older than 60 s go. Thread-safe.
class Journal {
 public:
  // Makes the folder when it is not there. Blocks while it reads what was left.
  //   FailedPrecondition  another process has the folder, or it cannot be written
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& directory,
                                                       const Clock& clock = Clock::Real());
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // What an earlier process left that is not older than 60 s; oldest first. Once.
  std::vector<JournalFact> TakeOld();

  // Into memory; does not block on the disk unless 64 MiB wait for it.
  //   Unavailable (JOURNAL_FAILED)  they could not be written
  //   ResourceExhausted             the fact is over 4 MiB
  absl::Status Append(std::string_view pool, const std::vector<std::string>& parts);
  // Blocks until everything that was appended before is on the disk (fdatasync: some milliseconds);
  // those who wait share one write.
  //   Unavailable (JOURNAL_FAILED)  it is not; it is tried again with the next one
  absl::Status Commit();

 private:
  Journal(std::string directory, const Clock& clock);
  absl::Status Lock();
  absl::Status ReadOld();
  absl::Status Write(std::string_view bytes);
  absl::Status NextFile();
  void RemoveStale();

  struct File {
    uint64_t number = 0;
    int64_t last_us = 0;  // of its newest fact, monotonic
  };

  const std::string directory_;
  const Clock& clock_;
  int lock_fd_ = -1;
  // Of whoever writes: one at a time.
  int fd_ = -1;
  uint64_t number_ = 0;
  size_t file_bytes_ = 0;
  int64_t begun_us_ = 0;
  std::vector<File> older_;

  Mutex mutex_;
  CondVar changed_;
  std::string waiting_ ABSL_GUARDED_BY(mutex_);
  uint64_t appended_ ABSL_GUARDED_BY(mutex_) = 0;  // facts, ever
  uint64_t durable_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<JournalFact> old_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::job
