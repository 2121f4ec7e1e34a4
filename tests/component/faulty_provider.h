#pragma once
// A provider of voices and ears, as OpenAI's HTTP has them, that fails in one of five ways at a
// moment of the test's choosing.
#include <absl/time/time.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "audio/pcm.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "http_peer.h"

namespace parley::testing {

enum class Fault {
  kNone,
  kKill,      // the connection is reset
  kHalfOpen,  // nothing more comes, and nobody says so
  kDrip,      // a byte now and then
  kEmpty,     // success without a content
  kBusy,      // 429, far below what was paid for
};
inline constexpr Fault kFaults[] = {Fault::kKill, Fault::kHalfOpen, Fault::kDrip, Fault::kEmpty,
                                    Fault::kBusy};
inline const char* NameOf(Fault fault) {
  static constexpr const char* kNames[] = {"none", "kill", "half-open", "drip", "empty", "429"};
  return kNames[static_cast<int>(fault)];
}

class FaultyProvider {
 public:
  struct Options {
    absl::Duration first_byte = absl::Milliseconds(60);
    double speed = 4;  // of speech, times as fast as it is heard
    int rate_hz = 24'000;
    std::string transcript;                                              // of whatever is heard
    std::function<std::vector<int16_t>(const std::string& text)> voice;  // at rate_hz
  };
  explicit FaultyProvider(Options options) : options_(std::move(options)) {}
  std::string url() const { return peer_.url(); }
  // The next request fails so, at this part (0 to 1) of the time that its answer takes.
  void Plan(Fault fault, double moment) {
    MutexLock lock(&mutex_);
    fault_ = fault;
    moment_ = moment;
  }
  // The planned fault was met by a request.
  bool met() const {
    MutexLock lock(&mutex_);
    return fault_ == Fault::kNone;
  }

 private:
  bool Serve(int client, const std::string& request) {
    Fault fault;
    double moment;
    {
      MutexLock lock(&mutex_);
      fault = std::exchange(fault_, Fault::kNone);
      moment = moment_;
    }
    if (fault == Fault::kBusy)
      return HttpPeer::Send(client,
                            "HTTP/1.1 429 Busy\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n");
    std::string body;
    const bool speech = request.find("/audio/speech") < request.find("\r\n");
    if (speech) {
      const size_t from = request.find("\"input\":\"") + 9;
      body = audio::AsBytes(options_.voice(request.substr(from, request.find('"', from) - from)));
    } else {
      body = "{\"text\": \"" + options_.transcript + "\"}";
    }
    const std::string head = std::string("HTTP/1.1 200 OK\r\nContent-Type: ") +
                             (speech ? "audio/pcm" : "application/json") + "\r\nContent-Length: " +
                             std::to_string(fault == Fault::kEmpty ? 0 : body.size()) + "\r\n\r\n";
    if (fault == Fault::kEmpty)
      return peer_.Stays(client, options_.first_byte) && HttpPeer::Send(client, head);
    const double bytes_per_second = options_.rate_hz * 2 * options_.speed;
    const absl::Duration whole =
        options_.first_byte +
        (speech ? absl::Seconds(static_cast<double>(body.size()) / bytes_per_second)
                : absl::ZeroDuration());
    const int64_t start_us = Clock::Real().MonotonicMicros();
    const auto now = [&] { return absl::Microseconds(Clock::Real().MonotonicMicros() - start_us); };
    const absl::Duration fails = fault == Fault::kNone ? absl::InfiniteDuration() : whole * moment;
    if (!peer_.Stays(client, std::min(fails, options_.first_byte))) return false;
    if (now() >= fails) return Fail(client, fault, fails >= options_.first_byte ? "" : head);
    if (!HttpPeer::Send(client, head)) return false;
    if (!speech) {
      if (fault != Fault::kNone) return Fail(client, fault, "");
      return HttpPeer::Send(client, body);
    }
    for (size_t sent = 0; sent < body.size();) {
      const absl::Duration at = std::min(now(), fails) - options_.first_byte;
      const size_t due = std::min(
          body.size(),
          static_cast<size_t>((absl::ToDoubleSeconds(at) + 0.02) * bytes_per_second) & ~size_t{1});
      if (due > sent && !HttpPeer::Send(client, std::string_view(body).substr(sent, due - sent)))
        return false;
      sent = std::max(sent, due);
      if (now() >= fails) return Fail(client, fault, "");
      if (sent < body.size() && !peer_.Stays(client, absl::Milliseconds(10))) return false;
    }
    return true;
  }
  bool Fail(int client, Fault fault, const std::string& head) {
    if (fault == Fault::kKill) {
      const linger reset = {1, 0};
      setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
      return false;
    }
    if (fault == Fault::kHalfOpen) {
      peer_.Stays(client, absl::Seconds(60));
      return false;
    }
    if (!head.empty()) HttpPeer::Send(client, head);
    while (peer_.Stays(client, absl::Milliseconds(50)) && HttpPeer::Send(client, " ")) {
    }
    return false;
  }

  const Options options_;
  mutable Mutex mutex_;
  Fault fault_ ABSL_GUARDED_BY(mutex_) = Fault::kNone;
  double moment_ ABSL_GUARDED_BY(mutex_) = 0;
  HttpPeer peer_{[this](int client, const std::string& request) { return Serve(client, request); }};
};

}  // namespace parley::testing
