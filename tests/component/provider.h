#pragma once
// A provider of speech or answers that says the same to everybody.
#include <string>
#include <vector>

#include "base/mutex.h"
#include "http_peer.h"

namespace parley::testing {

// Answers every request with the same bytes, in pieces, then closes. Keeps what it was asked.
class Provider {
 public:
  explicit Provider(std::vector<std::string> pieces, absl::Duration pause = absl::ZeroDuration())
      : pieces_(std::move(pieces)), pause_(pause) {}
  std::string url() const { return peer_.url() + "/"; }
  std::string asked() const {
    MutexLock lock(&mutex_);
    return asked_;
  }

 private:
  bool Serve(int client, const std::string& request) {
    {
      MutexLock lock(&mutex_);
      asked_ = request;
    }
    for (const std::string& piece : pieces_) {
      HttpPeer::Send(client, piece);
      if (peer_.stop().SleepFor(pause_)) break;
    }
    return false;
  }

  const std::vector<std::string> pieces_;
  const absl::Duration pause_;
  mutable Mutex mutex_;
  std::string asked_ ABSL_GUARDED_BY(mutex_);
  HttpPeer peer_{[this](int client, const std::string& request) { return Serve(client, request); }};
};

}  // namespace parley::testing
