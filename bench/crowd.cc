#include "crowd.h"

#include <algorithm>
#include <utility>

#include "audio/opus.h"
#include "audio/pcm.h"
#include "audio/resample.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"
#include "line.h"
#include "rpc/locks.h"

namespace parley::bench {
namespace {

constexpr int64_t kFrameUs = 20'000;
constexpr uint32_t kFrameTicks = 960;
constexpr int64_t kLateTickUs = 10'000;
// Frames of one speech follow each other; a longer pause on the media clock begins a new one.
constexpr uint32_t kMaxGapTicks = 25 * kFrameTicks;
constexpr uint8_t kSpeechLevel = 30;  // -dBov
constexpr uint8_t kSilenceLevel = 77;

int64_t NowMicros() { return Clock::Real().MonotonicMicros(); }

}  // namespace

Packets Encode(const std::vector<int16_t>& samples, int rate_hz) {
  auto resampler = audio::Resampler::Create(rate_hz, audio::kRoomRateHz);
  auto encoder = audio::OpusEncoder::Create();
  PARLEY_CHECK(resampler.ok() && encoder.ok());
  std::vector<int16_t> wide;
  resampler->Append(samples, wide);
  wide.resize((wide.size() + kFrameTicks - 1) / kFrameTicks * kFrameTicks);
  Packets packets;
  std::vector<uint8_t> packet(audio::OpusEncoder::kMaxPacketBytes);
  for (size_t at = 0; at < wide.size(); at += kFrameTicks) {
    const auto bytes = encoder->Encode(std::span(wide).subspan(at, kFrameTicks), packet);
    PARLEY_CHECK(bytes.ok());
    packets.emplace_back(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(*bytes));
  }
  return packets;
}

class Crowd::Person : public std::enable_shared_from_this<Person> {
 public:
  Person(const Options& options, int64_t phase_us) : options_(options), phase_us_(phase_us) {}

  // What the line of this caller is to be told.
  LineEvents Events() {
    const auto self = shared_from_this();
    const auto set = [self](bool Person::*what) {
      return [self, what] {
        MutexLock lock(&self->mutex_);
        self.get()->*what = true;
        self->changed_.SignalAll();
      };
    };
    return {.published = set(&Person::published_),
            .heard = set(&Person::heard_),
            .hears = set(&Person::hears_),
            .audio = [self](uint32_t timestamp) { self->OnAudio(timestamp); },
            .over = set(&Person::over_)};
  }
  // First call, before the others.
  void Use(std::shared_ptr<Line> line) { line_ = std::move(line); }

  // The sending thread: everything that is due by `now_us`. When the next frame is.
  int64_t Send(int64_t now_us) {
    if (next_us_ == 0) next_us_ = now_us + phase_us_ % kFrameUs;
    while (next_us_ <= now_us) {
      SendFrame(next_us_);
      next_us_ += kFrameUs;
    }
    return next_us_;
  }

  bool connected() const {
    MutexLock lock(&mutex_);
    return heard_ && hears_ && !over_;
  }
  bool over() const {
    MutexLock lock(&mutex_);
    return over_;
  }
  void Begin() {
    MutexLock lock(&mutex_);
    result_ = CrowdResult();
    speech_.clear();
    asked_us_ = 0;
  }
  void AddTo(CrowdResult& sum) {
    MutexLock lock(&mutex_);
    EndSpeech();
    sum.turn_ms.insert(sum.turn_ms.end(), result_.turn_ms.begin(), result_.turn_ms.end());
    sum.behind_ms.insert(sum.behind_ms.end(), result_.behind_ms.begin(), result_.behind_ms.end());
    sum.frames_late += result_.frames_late;
    sum.frames_missing += result_.frames_missing;
    sum.frames_sent += result_.frames_sent;
    sum.frames_dropped += result_.frames_dropped;
    sum.unanswered += result_.unanswered;
    sum.lost += over_ ? 1 : 0;
  }
  void HangUp() {
    line_->HangUp();
    const int64_t until_us = NowMicros() + 2'000'000;
    MutexLock lock(&mutex_);
    while (!over_ && NowMicros() < until_us) changed_.WaitFor(&mutex_, absl::Milliseconds(50));
    if (!over_) line_->Cut();
    while (!over_) changed_.Wait(&mutex_);
  }

 private:
  struct Arrival {
    uint32_t timestamp;
    int64_t at_us;
  };

  void SendFrame(int64_t at_us) {
    MutexLock lock(&mutex_);
    if (!published_ || over_) return;
    if (start_us_ == 0) start_us_ = at_us;
    const int64_t cycle_us = absl::ToInt64Microseconds(options_.cycle);
    const int64_t since_us = at_us - start_us_ - phase_us_;
    const auto place = static_cast<size_t>((since_us % cycle_us + cycle_us) % cycle_us / kFrameUs);
    const bool asks = since_us >= 0 && place < options_.question.size() && heard_ && hears_;
    const std::string& packet =
        asks ? options_.question[place] : options_.silence[frames_ % options_.silence.size()];
    frames_++;
    if (asks && place == 0 && asked_us_ != 0) ++result_.unanswered;
    ++result_.frames_sent;
    if (!line_->Send(static_cast<uint32_t>(frames_) * kFrameTicks,
                     asks ? kSpeechLevel : kSilenceLevel, packet)) {
      ++result_.frames_dropped;
    }
    if (asks && place + 1 == options_.question.size()) asked_us_ = NowMicros();
  }

  void OnAudio(uint32_t timestamp) {
    const int64_t now_us = NowMicros();
    MutexLock lock(&mutex_);
    if (asked_us_ != 0) {
      result_.turn_ms.push_back(static_cast<double>(now_us - asked_us_) / 1000);
      asked_us_ = 0;
    }
    if (!speech_.empty()) {
      const uint32_t step = timestamp - speech_.back().timestamp;
      if (step == 0 || step > kMaxGapTicks) {
        EndSpeech();
      } else {
        result_.frames_missing += step / kFrameTicks - 1;
        result_.frames_late += step / kFrameTicks - 1;
      }
    }
    speech_.push_back({timestamp, now_us});
  }

  void EndSpeech() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (speech_.empty()) return;
    const uint32_t origin = speech_.front().timestamp;
    const auto shift_us = [origin](const Arrival& one) {
      return one.at_us - int64_t{one.timestamp - origin} * 1'000'000 / audio::kRoomRateHz;
    };
    int64_t earliest_us = shift_us(speech_.front());
    for (const Arrival& one : speech_) earliest_us = std::min(earliest_us, shift_us(one));
    for (const Arrival& one : speech_) {
      const int64_t behind_us = shift_us(one) - earliest_us;
      result_.behind_ms.push_back(static_cast<double>(behind_us) / 1000);
      if (behind_us > kLateFrameUs) ++result_.frames_late;
    }
    speech_.clear();
  }

  const Options& options_;
  const int64_t phase_us_;
  std::shared_ptr<Line> line_;
  int64_t next_us_ = 0;  // the sending thread's
  mutable Mutex mutex_;
  CondVar changed_;
  bool published_ ABSL_GUARDED_BY(mutex_) = false;
  bool heard_ ABSL_GUARDED_BY(mutex_) = false;  // somebody subscribed to us
  bool hears_ ABSL_GUARDED_BY(mutex_) = false;  // we to somebody
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t start_us_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t asked_us_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: no question is open
  uint64_t frames_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Arrival> speech_ ABSL_GUARDED_BY(mutex_);
  CrowdResult result_ ABSL_GUARDED_BY(mutex_);
};

Crowd::Crowd(Options options)
    : options_(std::move(options)),
      exchange_(options_.webrtc ? std::make_unique<Exchange>() : nullptr),
      thread_([this] { Run(); }) {
  rpc::TurnOffDeadlockDetector();
}

Crowd::~Crowd() {
  std::vector<std::shared_ptr<Person>> people;
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    people.swap(people_);
  }
  thread_.join();
  for (const auto& person : people) person->HangUp();
}

void Crowd::Add(const std::string& media_url, const std::string& token, absl::Duration phase) {
  auto person = std::make_shared<Person>(options_, absl::ToInt64Microseconds(phase));
  person->Use(exchange_ == nullptr
                  ? MediaStream(media_url, token, person->Events())
                  : PeerConnection(*exchange_, media_url, token, person->Events()));
  MutexLock lock(&mutex_);
  people_.push_back(std::move(person));
}

absl::Status Crowd::WaitConnected(absl::Duration timeout) {
  const int64_t until_us = NowMicros() + absl::ToInt64Microseconds(timeout);
  while (true) {
    size_t connected = 0;
    size_t over = 0;
    size_t all = 0;
    {
      MutexLock lock(&mutex_);
      all = people_.size();
      for (const auto& person : people_) {
        connected += person->connected() ? 1 : 0;
        over += person->over() ? 1 : 0;
      }
    }
    if (connected == all) return absl::OkStatus();
    if (NowMicros() > until_us) {
      return DeadlineExceeded("{} of {} callers hear their agent; {} calls are over", connected,
                              all, over);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void Crowd::Begin() {
  MutexLock lock(&mutex_);
  ticks_late_ = 0;
  for (const auto& person : people_) person->Begin();
}

CrowdResult Crowd::Take() {
  CrowdResult sum;
  MutexLock lock(&mutex_);
  sum.ticks_late = ticks_late_;
  for (const auto& person : people_) person->AddTo(sum);
  return sum;
}

void Crowd::Run() {
  std::vector<std::shared_ptr<Person>> people;
  int64_t due_us = NowMicros();
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (stopped_) return;
      if (people.size() != people_.size()) people = people_;
      if (NowMicros() - due_us > kLateTickUs) ++ticks_late_;
    }
    const int64_t now_us = NowMicros();
    due_us = now_us + kFrameUs;
    for (const auto& person : people) due_us = std::min(due_us, person->Send(now_us));
    // As many as are due within a millisecond go together.
    due_us = std::max(due_us, now_us + 1'000);
    const int64_t wait_us = due_us - NowMicros();
    if (wait_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(wait_us));
  }
}

}  // namespace parley::bench
