#pragma once
// A provider of speech that counts what it is asked for at a time, and bans whoever asks for more
// than it allows.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <list>
#include <map>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/mutex.h"
#include "speech/cancel.h"

namespace parley::testing {

// Answers POST /v1/audio/speech with a tone, half of it at once, half after `hold`. A request is
// under way from its last byte until its answer is out or its connection is gone. More than
// `limit` of them at a time (0 = any number): 429, and the ban is counted.
class MeteredProvider {
 public:
  MeteredProvider(int limit, absl::Duration hold, size_t audio_bytes = 9600)
      : limit_(limit), hold_(hold), audio_(audio_bytes, '\1') {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 512), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Accept(); });
  }
  ~MeteredProvider() {
    stop_.Cancel();
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    for (std::thread& thread : threads_) thread.join();
    close(listener_);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1"; }
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
  void Accept() {
    while (!stop_.cancelled()) {
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) return;
      threads_.emplace_back([this, client] {
        while (Serve(client)) {
        }
        close(client);
      });
    }
  }
  // False: the connection is over.
  bool Serve(int client) {
    std::string request;
    size_t wanted = std::string::npos;
    while (request.size() < wanted) {
      pollfd waiting = {client, POLLIN, 0};
      if (stop_.cancelled()) return false;
      if (poll(&waiting, 1, 100) == 0) continue;
      char bytes[4096];
      const ssize_t got = recv(client, bytes, sizeof(bytes), 0);
      if (got <= 0) return false;
      request.append(bytes, static_cast<size_t>(got));
      const size_t head = request.find("\r\n\r\n");
      const size_t length = request.find("Content-Length: ");
      if (head != std::string::npos)
        wanted = head + 4 + (length < head ? std::stoul(request.substr(length + 16)) : 0);
    }
    const size_t from = request.find("\"input\":\"") + 9;
    const std::string text = request.substr(from, request.find('"', from) - from);
    const int now = ++active_;
    int seen = most_.load();
    while (now > seen && !most_.compare_exchange_weak(seen, now)) {
    }
    if (limit_ > 0 && now > limit_) {
      ++bans_;
      --active_;
      return Send(client, "HTTP/1.1 429 Banned\r\nContent-Length: 0\r\n\r\n");
    }
    const int64_t start_us = Clock::Real().MonotonicMicros();
    const size_t half = audio_.size() / 4 * 2;
    bool alive =
        Send(client, "HTTP/1.1 200 OK\r\nContent-Type: audio/pcm\r\nContent-Length: " +
                         std::to_string(audio_.size()) + "\r\n\r\n" + audio_.substr(0, half));
    while (alive && !stop_.cancelled()) {
      const int64_t left_ms =
          absl::ToInt64Milliseconds(hold_) - (Clock::Real().MonotonicMicros() - start_us) / 1000;
      if (left_ms <= 0) break;
      pollfd gone = {client, POLLIN | POLLRDHUP, 0};
      alive = poll(&gone, 1, static_cast<int>(std::min<int64_t>(left_ms, 100))) == 0;
    }
    {
      MutexLock lock(&mutex_);
      Use& use = use_[text.substr(0, text.find(':'))];
      use.seconds += static_cast<double>(Clock::Real().MonotonicMicros() - start_us) / 1e6;
      ++use.requests;
      ++asked_[text];
    }
    --active_;  // before its last byte is: whoever reads that may ask again
    return alive && Send(client, audio_.substr(half));
  }
  static bool Send(int client, const std::string& bytes) {
    return send(client, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }

  const int limit_;
  const absl::Duration hold_;
  const std::string audio_;
  int listener_ = -1;
  int port_ = 0;
  speech::Cancellation stop_;
  std::atomic<int> active_ = 0;
  std::atomic<int> most_ = 0;
  std::atomic<int> bans_ = 0;
  mutable Mutex mutex_;
  std::map<std::string, Use> use_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> asked_ ABSL_GUARDED_BY(mutex_);
  std::list<std::thread> threads_;
  std::thread thread_;
};

}  // namespace parley::testing
