#pragma once
// A provider of speech that counts what it is asked for at a time, and bans whoever asks for more
// than it allows.
#include <atomic>
#include <map>
#include <string>

#include "base/clock.h"
#include "base/mutex.h"
#include "http_peer.h"

namespace parley::testing {

// Answers POST /v1/audio/speech with a tone, half of it at once, half after `hold`. A request is
// under way from its last byte until its answer is out or its connection is gone. More than
// `limit` of them at a time (0 = any number): 429, and the ban is counted.
class MeteredProvider {
 public:
  MeteredProvider(int limit, absl::Duration hold, size_t audio_bytes = 9600)
      : limit_(limit), hold_(hold), audio_(audio_bytes, '\1') {}
  std::string url() const { return peer_.url(); }
  int bans() const { return bans_.load(); }
  int most() const { return most_.load(); }
  // By what stands in the text before its first ':'.
  struct Use {
    double seconds = 0;  // of requests under way
    int requests = 0;
  };
  std::map<std::string, Use> use() const {
    MutexLock lock(&mutex_);
    return use_;
  }
  // By text.
  std::map<std::string, int> asked() const {
    MutexLock lock(&mutex_);
    return asked_;
  }
  void Forget() {
    MutexLock lock(&mutex_);
    use_.clear();
    asked_.clear();
  }

 private:
  // False: the connection is over.
  bool Serve(int client, const std::string& request) {
    const size_t from = request.find("\"input\":\"") + 9;
    const std::string text = request.substr(from, request.find('"', from) - from);
    const int now = ++active_;
    int seen = most_.load();
    while (now > seen && !most_.compare_exchange_weak(seen, now)) {
    }
    if (limit_ > 0 && now > limit_) {
      ++bans_;
      --active_;
      return HttpPeer::Send(client, "HTTP/1.1 429 Banned\r\nContent-Length: 0\r\n\r\n");
    }
    const int64_t start_us = Clock::Real().MonotonicMicros();
    const size_t half = audio_.size() / 4 * 2;
    bool alive = HttpPeer::Send(
        client, "HTTP/1.1 200 OK\r\nContent-Type: audio/pcm\r\nContent-Length: " +
                    std::to_string(audio_.size()) + "\r\n\r\n" + audio_.substr(0, half));
    const absl::Duration taken = absl::Microseconds(Clock::Real().MonotonicMicros() - start_us);
    alive = alive && (peer_.Stays(client, hold_ - taken) || peer_.stop().cancelled());
    {
      MutexLock lock(&mutex_);
      Use& use = use_[text.substr(0, text.find(':'))];
      use.seconds += static_cast<double>(Clock::Real().MonotonicMicros() - start_us) / 1e6;
      ++use.requests;
      ++asked_[text];
    }
    --active_;  // before its last byte is: whoever reads that may ask again
    return alive && HttpPeer::Send(client, audio_.substr(half));
  }

  const int limit_;
  const absl::Duration hold_;
  const std::string audio_;
  std::atomic<int> active_ = 0;
  std::atomic<int> most_ = 0;
  std::atomic<int> bans_ = 0;
  mutable Mutex mutex_;
  std::map<std::string, Use> use_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> asked_ ABSL_GUARDED_BY(mutex_);
  HttpPeer peer_{[this](int client, const std::string& request) { return Serve(client, request); }};
};

}  // namespace parley::testing
