#pragma once
// The callers of a load: each in a room of its own over a line of its own, at the pace of real
// time, with packets that were encoded beforehand. A caller sends a frame every 20 ms, speech
// or silence; every `cycle` it speaks once and times the answer.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace parley::bench {

using Packets = std::vector<std::string>;  // Opus, 20 ms each

// `samples` at `rate_hz` as packets at 48 kHz.
Packets Encode(const std::vector<int16_t>& samples, int rate_hz);

// What happened between two moments.
struct CrowdResult {
  std::vector<double> turn_ms;  // last frame of a question sent → first frame of its answer here
  std::vector<double> behind_ms;  // frames of agents: behind the earliest of their speech
  int64_t frames_late = 0;        // more than kLateFrame behind, or never came
  int64_t frames_sent = 0;
  int64_t frames_dropped = 0;  // by a stream that did not keep up
  int64_t ticks_late = 0;      // this program itself was more than 10 ms late
  int unanswered = 0;          // questions
  int lost = 0;                // calls that are over

  int64_t frames() const { return static_cast<int64_t>(behind_ms.size()) + frames_missing; }
  int64_t frames_missing = 0;  // of those late
};

// The smallest usual jitter buffer: what comes later than this is not played.
inline constexpr int64_t kLateFrameUs = 40'000;

class Exchange;

// Thread-safe. One thread sends; gRPC's threads receive, or the exchange's.
class Crowd {
 public:
  struct Options {
    Packets question;
    Packets silence;  // repeated
    absl::Duration cycle = absl::Seconds(10);
    bool webrtc = false;  // as browsers are connected; otherwise by gRPC
  };
  explicit Crowd(Options options);
  ~Crowd();  // all hang up

  // One more caller, who begins to ask at `phase` of each cycle. Does not wait.
  void Add(const std::string& media_url, const std::string& token, absl::Duration phase);
  // Blocks until every caller hears its agent and is heard.
  absl::Status WaitConnected(absl::Duration timeout);
  // Forgets what was counted so far.
  void Begin();
  CrowdResult Take();

 private:
  class Person;
  void Run();

  const Options options_;
  const std::unique_ptr<Exchange> exchange_;
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<Person>> people_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t ticks_late_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

}  // namespace parley::bench
