#pragma once
// Live calls on a cluster of real processes while something they depend on is away. A call counts
// as uncut only if its caller gets, after the fault and in the same room, an answer that depends on
// what it said before: the agent (memory_agent.cc) keeps that in its process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "auth/token.h"
#include "base/ids.h"
#include "base/status.h"
#include "parley/dispatch/v1/worker.grpc.pb.h"
#include "rpc/channel.h"
#include "testing/calls.h"
#include "testing/redis_fixture.h"
#include "testing/tcp_gate.h"

namespace parley::testing {

using nlohmann::json;

#define ASSERT_OK(expression)                                                     \
  do {                                                                            \
    const absl::Status parley_test_status = (expression);                         \
    ASSERT_TRUE(parley_test_status.ok()) << parley_test_status << "\n" << Logs(); \
  } while (false)

class OutageTest : public ::testing::Test {
 protected:
  static constexpr char kScript[] = R"({"tts": {"delay": "20ms", "per_character": "10ms"}})";

  // Without agent servers: AddServer.
  void StartCluster(ClusterOptions options = {}) {
    options.agent_servers = 0;
    options.agent_binary = "parley-memory-agent";
    options.agent_arguments = {"--slots", "100"};
    options.work_dir = directory_.path();
    std::ofstream(directory_.path() + "/script.json") << kScript;
    for (const std::string kind : {"stt", "tts"}) {
      options.extra_arguments[kind + "-gateway"] = {"--" + kind + "-script",
                                                    directory_.path() + "/script.json"};
    }
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    api_ = std::make_unique<Api>(*cluster_);
  }
  void TearDown() override {
    calls_.clear();
    api_.reset();
    brokers_.clear();
    cluster_.reset();
  }
  void AddServer(const std::vector<std::string>& arguments = {}) {
    ASSERT_OK(cluster_->StartAgentServer(arguments));
    ++servers_;
  }
  // A further broker, on a port of its own.
  void AddBroker(std::string* address) {
    const std::string log = fmt::format("{}/broker-{}.log", directory_.path(), brokers_.size());
    const char* bin = std::getenv("PARLEY_BIN_DIR");
    auto broker =
        Process::Start({std::string(bin) + "/parley-dispatch-broker", "--dev", "--grpc-port", "0",
                        "--admin-port", "0", "--redis-address", cluster_->Redis().address()},
                       log);
    ASSERT_TRUE(broker.ok()) << broker.status();
    const auto serving = (*broker)->WaitForLine("\"msg\":\"serving\"", absl::Seconds(20));
    ASSERT_TRUE(serving.ok()) << serving.status();
    *address = fmt::format("127.0.0.1:{}", json::parse(*serving)["grpc_port"].get<int>());
    brokers_.push_back(*std::move(broker));
  }

  void PlaceMany(int count) {
    for (int i = 0; i < count; ++i) {
      auto call = MemoryCall::Place(*api_, fmt::format("w{}", i));
      ASSERT_OK(call.status());
      ASSERT_OK((*call)->Tell());
      calls_.push_back(*std::move(call));
    }
  }
  json JobOf(const MemoryCall& call) {
    const auto job = api_->Job(call.dispatch_id());
    EXPECT_TRUE(job.ok()) << job.status();
    return job.value_or(json::object());
  }
  // Nobody was dispatched again, and every agent remembers.
  void ExpectAllUncut() {
    int cut = 0, restarted = 0;
    for (auto& call : calls_) {
      const absl::Status answer = call->Ask();
      EXPECT_TRUE(answer.ok()) << answer;
      const json job = JobOf(*call);
      EXPECT_EQ(job["state"], "RUNNING") << job;
      cut += answer.ok() && job["state"] == "RUNNING" ? 0 : 1;
      restarted += job["attempt"] == 1 ? 0 : 1;
    }
    EXPECT_EQ(cut, 0) << Logs();
    EXPECT_EQ(restarted, 0) << Logs();
    fmt::print("{} calls, {} cut, {} restarts\n", calls_.size(), cut, restarted);
  }

  // What the broker answers to a create, over HTTP.
  absl::StatusOr<http::Reply> Create(const std::string& room) {
    auth::Claims claims;
    claims.identity = "test";
    claims.video.room_admin = true;
    claims.video.room = room;
    http::Call call;
    call.method = "POST";
    call.url = api_->base() + "/api/dispatches";
    call.headers = {
        {"authorization",
         "Bearer " + auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1))},
        {"content-type", "application/json"}};
    call.body = json{{"agentName", "memory"}, {"room", room}}.dump();
    call.reach = http::Reach::kAny;
    return http_.Fetch(call);
  }
  int AdminStatus(const std::string& path) {
    http::Call call;
    call.url = "http://" + cluster_->AdminAddress("dispatch-broker") + path;
    call.reach = http::Reach::kAny;
    const auto reply = http_.Fetch(call);
    return reply.ok() ? reply->status : 0;
  }
  // The lease that the broker promises to workers: an outage that is shorter proves little.
  absl::Duration Lease() {
    auth::Claims claims;
    claims.identity = "probe";
    claims.video.agent = true;
    grpc::ClientContext context;
    rpc::SetBearer(context,
                   auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1)));
    rpc::SetTimeout(context, absl::Seconds(20));
    const auto stub = dispatch::v1::WorkerService::NewStub(
        rpc::MakeChannel(cluster_->Address("dispatch-broker")));
    const auto stream = stub->Connect(&context);
    dispatch::v1::ConnectRequest request;
    dispatch::v1::Register& worker = *request.mutable_register_();
    worker.set_worker_id(NewId(kWorkerPrefix));
    worker.set_instance(RandomHex(16));
    worker.set_connect_seq(1);
    worker.set_pool("probe");
    worker.add_agent_names("probe");
    worker.set_slots(1);
    stream->Write(request);
    dispatch::v1::ConnectResponse response;
    EXPECT_TRUE(stream->Read(&response) && response.has_registered());
    context.TryCancel();
    return absl::Seconds(response.registered().lease_ttl().seconds());
  }

  // The process of the call's first attempt on this agent server; 0: it has none.
  pid_t ProcessOf(const MemoryCall& call, size_t server) {
    const std::string id = JobOf(call)["id"].get<std::string>();
    std::istringstream lines(cluster_->AgentServer(server).Log());
    for (std::string line; std::getline(lines, line);) {
      const json entry = json::parse(line, nullptr, false);
      if (entry.is_object() && entry.value("msg", "") == "job running" &&
          entry.value("job_id", "") == id) {
        return entry["pid"].get<pid_t>();
      }
    }
    return 0;
  }

  std::string Logs() {
    if (!cluster_) return {};
    std::string text;
    const auto add = [&text](const std::string& name, const std::string& log) {
      text += "--- " + name + "\n" + log.substr(log.size() > 2500 ? log.size() - 2500 : 0);
    };
    for (size_t i = 0; i < servers_; ++i) {
      add(fmt::format("agent server {}", i), cluster_->AgentServer(i).Log());
    }
    add("broker", cluster_->Service("dispatch-broker").Log());
    for (const auto& broker : brokers_) add("another broker", broker->Log());
    return text;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Api> api_;
  std::vector<std::unique_ptr<MemoryCall>> calls_;
  std::vector<std::unique_ptr<Process>> brokers_;
  size_t servers_ = 0;
  http::Client http_;
};

// The whole story of a Redis that goes away and comes back, under `calls` live calls.
class RedisAwayTest : public OutageTest {
 protected:
  void NoCallIsCutWhileRedisIsAwayFor(absl::Duration away, int calls) {
    ASSERT_NO_FATAL_FAILURE(StartCluster());
    ASSERT_NO_FATAL_FAILURE(AddServer());
    ASSERT_GT(away, Lease()) << "longer than any lease, or it proves nothing";
    ASSERT_NO_FATAL_FAILURE(PlaceMany(calls));
    cluster_->Redis().Kill();
    const absl::Time gone = absl::Now();
    EXPECT_TRUE(Eventually([&] { return AdminStatus("/readyz") == 503; }));
    std::vector<absl::Duration> took;
    while (absl::Now() - gone < away - absl::Seconds(1)) {
      const absl::Time start = absl::Now();
      const auto refused = Create("nowhere");
      ASSERT_OK(refused.status());
      took.push_back(absl::Now() - start);
      EXPECT_EQ(refused->status, 503) << refused->body;
      EXPECT_TRUE(refused->headers.contains("retry-after")) << refused->body;
      EXPECT_EQ(AdminStatus("/healthz"), 200);
      EXPECT_EQ(AdminStatus("/readyz"), 503);
      ASSERT_OK(calls_[static_cast<size_t>(asked_++) % calls_.size()]->Ask());
      absl::SleepFor(std::min(absl::Seconds(1), away / 10));
    }
    // Of a few the middle one: a busy machine makes single ones late.
    std::sort(took.begin(), took.end());
    ASSERT_FALSE(took.empty());
    EXPECT_LE(took[took.size() / 2], absl::Milliseconds(500)) << took.back();
    absl::SleepFor(away - (absl::Now() - gone));
    ASSERT_OK(cluster_->Redis().Restart());
    ExpectRecoveryWithin2s();
    ExpectAllUncut();
  }
  void ExpectRecoveryWithin2s() {
    const absl::Time back = absl::Now();
    EXPECT_TRUE(Eventually([&] {
      const auto created = Create("after-the-outage");
      return created.ok() && created->status == 201;
    }));
    const absl::Duration recovery = absl::Now() - back;
    EXPECT_LE(recovery, absl::Seconds(2)) << Logs();
    fmt::print("creates again {:.2f} s after Redis was back\n", absl::ToDoubleSeconds(recovery));
    EXPECT_TRUE(Eventually([&] { return AdminStatus("/readyz") == 200; }));
  }
  int asked_ = 0;
};

}  // namespace parley::testing
