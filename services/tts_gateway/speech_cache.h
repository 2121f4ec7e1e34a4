#pragma once
// Speech that was made before: recordings on this replica's disk, found by all through Redis.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <variant>

#include "base/mutex.h"
#include "log/log.h"
#include "speech/cancel.h"
#include "speech/phrase.h"
#include "speech/tts.h"
#include "speech_redis/voice_index.h"

namespace parley {

// What is said, for whom and by which voice, as a digest: the name of its recording.
std::string PhraseDigest(const speech::TtsConfig& voice, std::string_view engine_version,
                         std::string_view text);

// Recordings belong to a project and live for `lifetime`. One replica makes a phrase, the others
// wait for it and copy it; one caller within a replica does so for all. Whoever makes it and does
// not come to its end leaves nothing behind. Without Redis nothing is found and nothing kept.
// Thread-safe.
class SpeechCache {
 public:
  struct Options {
    std::string directory;  // may be that of other gateways, too: each has a folder in it
    int64_t max_bytes = int64_t{256} << 20;
    absl::Duration lifetime = absl::Hours(24);
    // How long a caller waits for another who makes the same; then it makes it for itself.
    absl::Duration wait = absl::Seconds(2);
    // Making a phrase may take so long; then another may.
    absl::Duration making = absl::Seconds(10);
  };
  // Asks the replica at `address` for a recording, in the form of EncodePhrase. May block for a
  // second.
  using Fetch = std::function<absl::StatusOr<std::string>(
      const std::string& address, const std::string& project, const std::string& phrase,
      const std::string& id)>;

  // The caller makes the phrase. Finish() publishes it; going without leaves it to others.
  class Making {
   public:
    Making(SpeechCache& cache, std::string project, std::string phrase, std::string id);
    ~Making();
    Making(const Making&) = delete;
    Making& operator=(const Making&) = delete;
    // Blocks on disk and Redis. Opus is made here.
    void Finish(speech::Phrase phrase);

   private:
    SpeechCache& cache_;
    const std::string project_;
    const std::string phrase_;
    const std::string id_;
    bool finished_ = false;
  };
  struct Hit {
    std::shared_ptr<const speech::Phrase> phrase;
    bool copied = false;  // from another replica
  };
  struct Pass {};  // make it, and keep nothing
  using Found = std::variant<Hit, std::unique_ptr<Making>, Pass>;

  //   InvalidArgument  the directory cannot be used
  static absl::StatusOr<std::unique_ptr<SpeechCache>> Open(Options options, redis::Pool& redis,
                                                           Fetch fetch, log::Logger log);
  ~SpeechCache();
  // Where other replicas reach this one's gRPC; until it is known they do not.
  void SetAddress(std::string address) { index_.SetAddress(std::move(address)); }

  // Blocks for a round trip, or while another makes it.
  Found Find(const std::string& project, const std::string& phrase,
             const speech::Cancellation& cancel);
  // For another replica. NotFound.
  absl::StatusOr<std::string> Lend(const std::string& project, const std::string& phrase,
                                   const std::string& id);
  absl::Status Flush(const std::string& project);

  int64_t bytes() const;
  size_t size() const;

 private:
  struct Entry {
    std::string project;
    std::string phrase;
    std::string id;
    int64_t bytes = 0;
    absl::Time until;
  };
  using Entries = std::list<Entry>;  // the longest unused first

  SpeechCache(Options options, redis::Pool& redis, std::string id, Fetch fetch, log::Logger log);
  absl::Status MakeFolder();
  void Sweep();
  // False: somebody here makes or copies it already.
  bool Begin(const std::string& phrase);
  void End(const std::string& phrase);
  // Null: nobody who is said to keep it gave it.
  std::shared_ptr<const speech::Phrase> Copy(const std::string& project, const std::string& phrase,
                                             const speech_redis::VoiceIndex::Ready& ready);
  // Null: it is not here.
  std::shared_ptr<const speech::Phrase> ReadOwn(const std::string& project,
                                                const std::string& phrase, const std::string& id);
  // False: the disk does not take it.
  bool Store(Entry entry, std::string_view bytes);
  void Remove(const std::string& phrase, const std::string& id);
  void Drop(Entries::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string PathOf(const Entry& entry) const;

  const Options options_;
  const std::string folder_;
  int lock_ = -1;  // of the folder, as long as this lives
  speech_redis::VoiceIndex index_;
  const Fetch fetch_;
  const log::Logger log_;
  std::atomic<int64_t> away_until_us_ = 0;  // Redis is not asked before
  mutable Mutex mutex_;
  CondVar changed_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Entries::iterator> by_phrase_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> under_way_ ABSL_GUARDED_BY(mutex_);  // phrases made or copied here
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  speech::Cancellation stop_;
  std::thread sweeper_;
};

}  // namespace parley
