#pragma once
// A gateway on a thread of its own, reached over real gRPC on loopback.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "rpc/channel.h"
#include "rpc/status.h"
#include "service/service.h"

namespace parley::testing {

template <typename Config>
class RunningGateway {
 public:
  using RunFn = int (*)(const Config&, service::Context&, std::function<void(int, int)>);

  RunningGateway(std::string name, Config config, RunFn run) {
    config.common.dev = true;
    config.common.log_level = "error";
    config.common.drain = absl::Seconds(1);
    auto context = service::Context::Create(std::move(name), config.common);
    EXPECT_TRUE(context.ok()) << context.status();
    context_ = *std::move(context);
    std::promise<int> port;
    std::future<int> bound = port.get_future();
    thread_ = std::thread([this, config, run, &port] {
      code_ = run(config, *context_, [&port](int grpc_port, int) { port.set_value(grpc_port); });
    });
    port_ = bound.wait_for(std::chrono::seconds(60)) == std::future_status::ready ? bound.get() : 0;
    EXPECT_GT(port_, 0) << "the gateway did not start";
    channel_ = rpc::MakeChannel("127.0.0.1:" + std::to_string(port_));
  }
  ~RunningGateway() {
    context_->RequestStop();
    thread_.join();
    EXPECT_EQ(code_, 0);
  }

  std::shared_ptr<grpc::Channel> channel() const { return channel_; }
  int port() const { return port_; }
  service::Context& context() { return *context_; }
  // A call's surroundings: token of a service, deadline of 30 s. On a busy machine the first
  // connection may fail, and is tried again.
  std::unique_ptr<grpc::ClientContext> Call() const {
    auto call = std::make_unique<grpc::ClientContext>();
    rpc::SetBearer(*call, context_->ServiceToken());
    rpc::SetTimeout(*call, absl::Seconds(30));
    call->set_wait_for_ready(true);
    return call;
  }

 private:
  std::unique_ptr<service::Context> context_;
  std::shared_ptr<grpc::Channel> channel_;
  int port_ = 0;
  int code_ = -1;
  std::thread thread_;
};

// A file with `text`, gone with the object.
class TextFile {
 public:
  explicit TextFile(const std::string& text) {
    static int count = 0;
    path_ = ::testing::TempDir() + "/parley-" + std::to_string(getpid()) + "-" +
            std::to_string(++count);
    std::ofstream(path_) << text;
  }
  ~TextFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace parley::testing
