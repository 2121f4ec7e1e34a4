#pragma once
// The listening end of HTTP/1.1, as far as fakes of providers need one.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <list>
#include <string>
#include <string_view>
#include <thread>

#include "speech/cancel.h"

namespace parley::testing {

// Serves each connection on a thread of its own, request by request.
class HttpPeer {
 public:
  // One whole request; false closes the connection.
  using Serve = std::function<bool(int client, const std::string& request)>;

  explicit HttpPeer(Serve serve) : serve_(std::move(serve)) {
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
  ~HttpPeer() {
    stop_.Cancel();
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    for (std::thread& thread : threads_) thread.join();
    close(listener_);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1"; }
  const speech::Cancellation& stop() const { return stop_; }  // fires when the peer goes

  // False: the other end is gone.
  static bool Send(int client, std::string_view bytes) {
    return send(client, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // Waits; false: the other end went, or this one goes.
  bool Stays(int client, absl::Duration wait) const {
    const absl::Time until = absl::Now() + wait;
    for (absl::Duration left = wait; left > absl::ZeroDuration(); left = until - absl::Now()) {
      if (stop_.cancelled()) return false;
      pollfd gone = {client, POLLIN | POLLRDHUP, 0};
      const absl::Duration slice = std::min(left, absl::Milliseconds(100));
      if (poll(&gone, 1, static_cast<int>(absl::ToInt64Milliseconds(slice) + 1)) != 0) return false;
    }
    return !stop_.cancelled();
  }

 private:
  void Accept() {
    while (!stop_.cancelled()) {
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) return;
      threads_.emplace_back([this, client] {
        std::string request;
        while (Read(client, request) && serve_(client, request)) {
        }
        close(client);
      });
    }
  }
  bool Read(int client, std::string& request) const {
    request.clear();
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
      if (head == std::string::npos) continue;
      const size_t length = request.find("Content-Length: ");
      wanted = head + 4 + (length < head ? std::stoul(request.substr(length + 16)) : 0);
    }
    return true;
  }

  const Serve serve_;
  int listener_ = -1;
  int port_ = 0;
  speech::Cancellation stop_;
  std::list<std::thread> threads_;  // the accepting thread's, until it has ended
  std::thread thread_;
};

}  // namespace parley::testing
