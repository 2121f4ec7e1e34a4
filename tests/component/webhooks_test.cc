// Webhooks of real brokers on a real Redis, told to a URL that the test serves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "auth/webhook.h"
#include "base/ids.h"
#include "dispatch_broker/dispatch_broker.h"
#include "http/server.h"
#include "job_redis/webhook_cursors.h"
#include "parley/dispatch/v1/dispatch.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/status.h"
#include "testing/redis_fixture.h"

namespace parley {
namespace {

namespace v1 = ::parley::dispatch::v1;
using nlohmann::json;
using ::testing::ElementsAre;
using testing::Eventually;

// Takes webhooks as a customer's server does.
class Receiver {
 public:
  Receiver() {
    server_.Handle("POST", "/hook", [this](const http::Request& request) {
      MutexLock lock(&mutex_);
      const int status = status_(++calls_);
      if (status != 200) return http::Response{status, "text/plain", "", {}};
      EXPECT_EQ(request.Header("content-type"), "application/webhook+json");
      const std::string authorization(request.Header("authorization"));
      const absl::Status genuine =
          auth::VerifyWebhook(request.body, authorization, *auth::KeyRing::Development());
      EXPECT_TRUE(genuine.ok()) << genuine;
      EXPECT_FALSE(
          auth::VerifyWebhook(request.body + " ", authorization, *auth::KeyRing::Development())
              .ok());
      if (const char* dump = std::getenv("PARLEY_WEBHOOK_DUMP")) {  // for other verifiers
        std::ofstream(dump, std::ios::app)
            << json{{"authorization", authorization}, {"body", request.body}} << "\n";
      }
      told_.push_back(json::parse(request.body));
      return http::Response{200, "text/plain", "", {}};
    });
    EXPECT_TRUE(server_.Start().ok());
  }
  ~Receiver() {
    server_.Stop(absl::Seconds(1));
    executor_.Stop();
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}/hook", server_.port()); }
  std::vector<json> told() const {
    MutexLock lock(&mutex_);
    return told_;
  }
  int calls() const {
    MutexLock lock(&mutex_);
    return calls_;
  }
  // What to answer to the n-th call, from 1.
  void Answer(std::function<int(int)> status) {
    MutexLock lock(&mutex_);
    status_ = std::move(status);
  }
  // The events told about one dispatch, in order.
  std::vector<std::string> About(const std::string& dispatch) const {
    std::vector<std::string> events;
    for (const json& body : told()) {
      if (body["dispatch"]["id"] == dispatch) events.push_back(body["event"].get<std::string>());
    }
    return events;
  }

 private:
  Executor executor_{2, 64};
  http::Server server_{{}, executor_, log::Logger()};
  mutable Mutex mutex_;
  std::function<int(int)> status_ ABSL_GUARDED_BY(mutex_) = [](int) { return 200; };
  std::vector<json> told_ ABSL_GUARDED_BY(mutex_);
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
};

class RunningBroker {
 public:
  RunningBroker(const redis::Config& redis, const std::string& url, bool metadata = false) {
    config_.redis.address = redis.address;
    config_.common.dev = true;
    config_.common.log_level = "error";
    config_.common.drain = absl::Milliseconds(200);
    config_.webhook_urls = {url};
    config_.webhook_metadata = metadata;
    context_ = std::move(service::Context::Create("dispatch-broker", config_.common)).value();
    std::promise<int> port;
    thread_ = std::thread([this, &port] {
      dispatch_broker::Run(config_, *context_, [&port](int grpc, int) { port.set_value(grpc); });
    });
    stub_ = v1::DispatchService::NewStub(
        rpc::MakeChannel(fmt::format("127.0.0.1:{}", port.get_future().get())));
    auth::Claims claims;
    claims.video.room_create = true;
    token_ = auth::Sign(claims, context_->keys()->keys()[0], absl::Hours(1));
  }
  ~RunningBroker() {
    context_->RequestStop();
    thread_.join();
  }

  // A dispatch that nobody serves; its id.
  std::string Create() {
    v1::CreateDispatchRequest request;
    request.set_agent_name("nobody");
    request.set_room("lobby");
    request.set_metadata("secret");
    v1::CreateDispatchResponse response;
    grpc::ClientContext context;
    Prepare(context);
    const grpc::Status status = stub_->CreateDispatch(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.dispatch().id();
  }
  // What a room server reports.
  void Report(const std::string& room, const std::string& sid, uint64_t version,
              const std::vector<std::string>& people, bool closed = false) {
    v1::ReportPresenceRequest request;
    v1::RoomPresence& one = *request.add_rooms();
    one.set_project("default");
    one.set_room(room);
    one.set_room_sid(sid);
    one.set_version(version);
    one.set_closed(closed);
    for (const std::string& identity : people) one.add_people()->set_identity(identity);
    v1::ReportPresenceResponse response;
    auth::Claims service;
    service.service = "room-server";
    grpc::ClientContext context;
    rpc::SetBearer(context, auth::SignService(service, *context_->keys(), absl::Hours(1)));
    rpc::SetTimeout(context, absl::Seconds(20));
    const grpc::Status status = stub_->ReportPresence(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  void End(const std::string& id) {
    v1::DeleteDispatchRequest request;
    request.set_dispatch_id(id);
    v1::DeleteDispatchResponse response;
    grpc::ClientContext context;
    Prepare(context);
    const grpc::Status status = stub_->DeleteDispatch(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }

 private:
  void Prepare(grpc::ClientContext& context) {
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, absl::Seconds(20));
  }

  DispatchBrokerConfig config_;
  std::unique_ptr<service::Context> context_;
  std::thread thread_;
  std::unique_ptr<v1::DispatchService::Stub> stub_;
  std::string token_;
};

class WebhooksTest : public testing::RedisTest {
 protected:
  // A webhook that is new hears what happens from its broker's first look at the pool on.
  std::string CreateUntilHeard(RunningBroker& broker) {
    std::string id;
    EXPECT_TRUE(Eventually([&] {
      id = broker.Create();
      return Eventually([&] { return !receiver_.About(id).empty(); }, absl::Seconds(1));
    }));
    return id;
  }
  Receiver receiver_;
};

TEST_F(WebhooksTest, SignedAndInOrderWithIdsAndStatesOnly) {
  RunningBroker broker(PoolConfig(), receiver_.url());
  CreateUntilHeard(broker);
  const std::string id = broker.Create();
  broker.End(id);
  ASSERT_TRUE(Eventually([&] { return receiver_.About(id).size() == 3; }));
  EXPECT_THAT(receiver_.About(id),
              ElementsAre("dispatch_created", "agent_job_ended", "dispatch_ended"));
  for (const json& body : receiver_.told()) {
    EXPECT_THAT(body["id"].get<std::string>(), ::testing::StartsWith("EV_"));
    EXPECT_EQ(body["room"]["name"], "lobby");
    EXPECT_EQ(body.dump().find("secret"), std::string::npos);
    if (body["event"] != "agent_job_ended") continue;
    EXPECT_EQ(body["job"]["state"]["status"], "JS_SUCCESS") << "LiveKit's word";
    EXPECT_EQ(body["job"]["parleyState"], "CANCELLED");
    EXPECT_EQ(body["job"]["reason"], "TERMINATED");
  }
}

TEST_F(WebhooksTest, RoomsAndWhoIsInThem) {
  RunningBroker broker(PoolConfig(), receiver_.url());
  const auto told = [this] {
    std::vector<std::string> lines;
    for (const json& body : receiver_.told()) {
      if (body.contains("dispatch") || body["room"]["name"] == "first") continue;
      EXPECT_EQ(body["room"]["name"], "a room & more");
      lines.push_back(body["event"].get<std::string>() + " " +
                      body["room"]["sid"].get<std::string>() + " " +
                      body.value("participant", json::object()).value("identity", ""));
    }
    return lines;
  };
  uint64_t version = 1;
  ASSERT_TRUE(Eventually([&] {  // a webhook hears what happens from its first look on
    broker.Report("first", "RM_0", version, {fmt::format("p{}", version)});
    ++version;
    return Eventually([&] { return receiver_.calls() > 0; }, absl::Milliseconds(500));
  }));
  const std::string room = "a room & more";
  broker.Report(room, "RM_1", 10, {});
  broker.Report(room, "RM_1", 11, {"ann=b"});
  broker.Report(room, "RM_1", 11, {"ann=b"});  // repeated
  broker.Report(room, "RM_1", 12, {"ann=b", "bob"});
  broker.Report(room, "RM_1", 11, {});  // late
  broker.Report(room, "RM_1", 13, {"bob"});
  broker.Report(room, "RM_2", 14, {"bob"});   // its server was lost; the room is anew
  broker.Report(room, "RM_1", 15, {}, true);  // late, too
  broker.Report(room, "RM_2", 16, {}, true);
  ASSERT_TRUE(Eventually([&] { return told().size() >= 10; }));
  EXPECT_THAT(told(), ElementsAre("room_started RM_1 ", "participant_joined RM_1 ann=b",
                                  "participant_joined RM_1 bob", "participant_left RM_1 ann=b",
                                  "participant_left RM_1 bob", "room_finished RM_1 ",
                                  "room_started RM_2 ", "participant_joined RM_2 bob",
                                  "participant_left RM_2 bob", "room_finished RM_2 "));
}

TEST_F(WebhooksTest, MetadataIsToldWhenAskedFor) {
  RunningBroker broker(PoolConfig(), receiver_.url(), true);
  CreateUntilHeard(broker);
  EXPECT_EQ(receiver_.told().back()["dispatch"]["metadata"], "secret");
}

TEST_F(WebhooksTest, ToldAgainUntilTaken) {
  RunningBroker broker(PoolConfig(), receiver_.url());
  CreateUntilHeard(broker);
  const int before = receiver_.calls();
  receiver_.Answer([before](int call) { return call <= before + 2 ? 500 : 200; });
  const std::string id = broker.Create();
  broker.End(id);
  ASSERT_TRUE(Eventually([&] { return receiver_.About(id).size() == 3; }));
  EXPECT_EQ(receiver_.calls(), before + 5);  // the first one three times, in its place
  EXPECT_THAT(receiver_.About(id),
              ElementsAre("dispatch_created", "agent_job_ended", "dispatch_ended"));
}

TEST_F(WebhooksTest, OneOfTwoBrokersTellsAndTheOtherTakesOver) {
  auto first = std::make_unique<RunningBroker>(PoolConfig(), receiver_.url());
  RunningBroker second(PoolConfig(), receiver_.url());
  CreateUntilHeard(*first);
  receiver_.Answer([](int) {  // slow enough for both to have something to tell
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return 200;
  });
  std::vector<std::string> ids;
  const auto run = [&](RunningBroker& broker, int count) {
    for (int i = 0; i < count; ++i) {
      ids.push_back(broker.Create());
      broker.End(ids.back());
      // Each time both wake up for it.
      EXPECT_TRUE(Eventually([&] { return receiver_.About(ids.back()).size() >= 3; }));
    }
  };
  run(second, 10);  // from now on both know the pool
  run(*first, 10);
  // The receiver has it, but perhaps the broker has not heard so yet: then it is told again.
  const std::string last = receiver_.told().back()["id"];
  first.reset();  // whichever of them told, the second goes on
  run(second, 10);
  std::map<std::string, int> times;
  std::map<std::string, std::vector<std::string>> about;
  for (const json& body : receiver_.told()) {
    const std::string event = body["id"];
    if (++times[event] > 1) continue;
    about[body["dispatch"]["id"]].push_back(body["event"]);
  }
  for (const std::string& id : ids) {
    EXPECT_THAT(about[id], ElementsAre("dispatch_created", "agent_job_ended", "dispatch_ended"));
  }
  for (const auto& [event, count] : times) EXPECT_LE(count, event == last ? 2 : 1) << event;
}

TEST_F(WebhooksTest, ALeaseIsOnesUntilItLapses) {
  job::WebhookCursors first(pool(), "B1", absl::Seconds(1));
  job::WebhookCursors second(pool(), "B2", absl::Seconds(1));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto taken, first.Take("p", "hook", "1-1"));
  EXPECT_EQ(taken, "1-1");
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto refused, second.Take("p", "hook", "9-9"));
  EXPECT_EQ(refused, std::nullopt);
  PARLEY_ASSERT_OK_AND_ASSIGN(const bool not_its, second.Advance("p", "hook", "9-9"));
  EXPECT_FALSE(not_its);
  PARLEY_ASSERT_OK_AND_ASSIGN(const bool advanced, first.Advance("p", "hook", "1-5"));
  EXPECT_TRUE(advanced);
  // The first falls silent: killed, or cut off.
  EXPECT_TRUE(Eventually([&] {
    const auto after = second.Take("p", "hook", "9-9");
    return after.ok() && *after == "1-5";
  }));
  PARLEY_ASSERT_OK_AND_ASSIGN(const bool late, first.Advance("p", "hook", "1-6"));
  EXPECT_FALSE(late);
  PARLEY_ASSERT_OK(second.Release("p", "hook"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto back, first.Take("p", "hook", "9-9"));
  EXPECT_EQ(back, "1-5");
}

}  // namespace
}  // namespace parley
