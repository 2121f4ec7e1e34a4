#pragma once
// A provider of speech or answers, as far as a test needs one: bytes over HTTP.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "speech/cancel.h"

namespace parley::testing {

// Answers every connection with the same bytes, in pieces, then closes. Keeps what it was asked.
class Provider {
 public:
  explicit Provider(std::vector<std::string> pieces, absl::Duration pause = absl::ZeroDuration())
      : pieces_(std::move(pieces)), pause_(pause) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~Provider() {
    stop_.Cancel();
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1/"; }
  std::string asked() const {
    MutexLock lock(&mutex_);
    return asked_;
  }

 private:
  void Run() {
    while (!stop_.cancelled()) {
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) return;
      Serve(client);
      close(client);
    }
  }
  void Serve(int client) {
    std::string request;
    size_t wanted = std::string::npos;
    while (request.size() < wanted) {
      char bytes[4096];
      const ssize_t got = recv(client, bytes, sizeof(bytes), 0);
      if (got <= 0) return;
      request.append(bytes, static_cast<size_t>(got));
      const size_t head = request.find("\r\n\r\n");
      if (head == std::string::npos) continue;
      const size_t length = request.find("Content-Length: ");
      wanted = head + 4 + (length < head ? std::stoul(request.substr(length + 16)) : 0);
    }
    {
      MutexLock lock(&mutex_);
      asked_ = request;
    }
    for (const std::string& piece : pieces_) {
      send(client, piece.data(), piece.size(), MSG_NOSIGNAL);
      if (stop_.SleepFor(pause_)) return;
    }
  }

  const std::vector<std::string> pieces_;
  const absl::Duration pause_;
  int listener_ = -1;
  int port_ = 0;
  speech::Cancellation stop_;
  mutable Mutex mutex_;
  std::string asked_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace parley::testing
