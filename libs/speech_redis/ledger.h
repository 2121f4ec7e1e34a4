#pragma once
// What projects and sessions use of providers, over all replicas, and where it ends.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "log/log.h"
#include "redis/redis.h"

namespace parley::speech_redis {

// What is counted. In the ledger a unit stands alone for what remote engines did, and as
// "unit:ENGINE" for each engine.
namespace units {
inline constexpr std::string_view kSttMs = "stt_ms";  // audio that was listened to
inline constexpr std::string_view kTtsCharacters = "tts_characters";
inline constexpr std::string_view kTtsCached = "tts_cached_characters";  // spoken from the cache
inline constexpr std::string_view kInputTokens = "input_tokens";
inline constexpr std::string_view kCachedInputTokens = "cached_input_tokens";  // part of the above
inline constexpr std::string_view kOutputTokens = "output_tokens";
}  // namespace units

// "PROJECT/LIMIT/PERIOD=NUMBER": LIMIT is stt_seconds, tts_characters or tokens (in and out),
// PERIOD is day (of UTC) or session, PROJECT may be "*" (each). As in "hotel/tokens/day=200000".
struct SpendCap {
  std::string project;
  std::string limit;
  bool of_session = false;
  int64_t most = 0;

  //   InvalidArgument  names what is wrong
  static absl::StatusOr<SpendCap> Parse(std::string_view text);
  static absl::StatusOr<std::vector<SpendCap>> ParseAll(const std::vector<std::string>& texts);
  std::string_view period() const { return of_session ? "session" : "day"; }
};

using Spend = std::map<std::string, int64_t, std::less<>>;  // by unit

// Charges are kept here and added in Redis every `flush`, each exactly once, however often Redis
// has to be told; what Redis does not take waits here, sessions apart from each other for up to
// kMaxSessions of a project. Of a replica that is killed the last `flush` is lost. Thread-safe.
class Ledger {
 public:
  static constexpr size_t kMaxSessions = 10'000;

  // `replica`: drawn at each start. `pool` outlives it.
  Ledger(redis::Pool& pool, std::string replica, std::vector<SpendCap> caps, log::Logger log,
         absl::Duration flush = absl::Milliseconds(500));
  ~Ledger();  // writes what is left

  // Never blocks on Redis. `remote`: the engine costs money.
  void Charge(const std::string& project, const std::string& session, std::string_view unit,
              std::string_view engine, bool remote, int64_t amount);
  // May the session go on with remote engines? To be asked between two turns. Blocks for a round
  // trip where caps are set for the project. While Redis is away nobody is stopped.
  //   ResourceExhausted  reason SPEND_CAP, metadata cap
  absl::Status Check(const std::string& project, const std::string& session);

  struct Book {
    Spend day;
    Spend session;
  };
  // Today's and the session's ("" = none), with what this replica has not yet written.
  //   Unavailable
  absl::StatusOr<Book> Read(const std::string& project, const std::string& session);

  struct CapUse {
    SpendCap cap;
    int64_t used = 0;  // in the cap's unit
  };
  // The caps that hold for the project, and what of each the book has used up.
  std::vector<CapUse> CapsOf(std::string_view project, const Book& book) const;

 private:
  using Sessions = std::map<std::string, Spend>;
  struct Account {
    Sessions fresh;
    Sessions said;  // to Redis, with `number`; its answer is not known yet
    uint64_t number = 0;
  };

  void Run();
  // Says what is to be said of the project, and reads.
  absl::StatusOr<Book> Sync(const std::string& project, const std::string& session);

  redis::Pool& pool_;
  const std::string replica_;
  const std::vector<SpendCap> caps_;
  const log::Logger log_;
  const absl::Duration flush_;
  Mutex saying_;  // one call to Redis at a time, so that charges keep their order
  Mutex mutex_ ABSL_ACQUIRED_AFTER(saying_);
  CondVar changed_;
  std::map<std::string, Account> accounts_ ABSL_GUARDED_BY(mutex_);
  int64_t failed_us_ ABSL_GUARDED_BY(mutex_) = 0;  // when Redis last failed; 0: it answers
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace parley::speech_redis
