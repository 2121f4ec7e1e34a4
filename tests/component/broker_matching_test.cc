// What a broker adds to the store's matching: the CPU brake, creates in batches, pinned
// definitions, who is in which room.
#include <cmath>
#include <limits>
#include <set>

#include "broker_fixture.h"
#include "registry/definition.h"
#include "registry_redis/store.h"

namespace parley {
namespace {

using testing::Eventually;
using testing::HasCode;
using testing::HasReason;

class BrokerMatchingTest : public DispatchBrokerTest {
 protected:
  void Beat(FakeWorker& worker, double load) {
    v1::ConnectRequest request;
    request.mutable_heartbeat()->set_seq(++beats_);
    request.mutable_heartbeat()->set_load(load);
    request.mutable_heartbeat()->set_accepting(true);
    worker.Send(std::move(request));
    const auto ack = worker.Await(v1::ConnectResponse::kHeartbeatAck);
    ASSERT_TRUE(ack.has_value());
  }
  v1::Worker Listed() {
    const auto list =
        Call(&v1::DispatchService::Stub::ListWorkers, v1::ListWorkersRequest(), token_);
    EXPECT_TRUE(list.ok()) << list.status();
    return list.ok() && list->workers_size() == 1 ? list->workers(0) : v1::Worker();
  }
  std::string ServiceToken() {
    auth::Claims claims;
    claims.service = claims.identity = "room_server";
    return auth::SignService(claims, *broker_->context().keys(), absl::Hours(1));
  }
  uint64_t beats_ = 0;
};

TEST_F(BrokerMatchingTest, AbsurdLoadsChangeNothingAndOneThresholdHoldsEverywhere) {
  v1::Register request = EchoWorker("AW_1");
  request.set_load_threshold(0.5);
  auto worker = std::make_unique<FakeWorker>(*broker_, request, token_);
  const auto registered = worker->Await(v1::ConnectResponse::kRegistered);
  ASSERT_TRUE(registered.has_value());
  EXPECT_DOUBLE_EQ(registered->registered().load_threshold(), 0.5);
  EXPECT_DOUBLE_EQ(Listed().load_threshold(), 0.5);
  for (const double load : {0.25, std::nan(""), -1.0, 0.25, 1e9, 1.0, 0.25,
                            std::numeric_limits<double>::infinity(), 0.25}) {
    Beat(*worker, load);
    EXPECT_TRUE(Listed().accepting()) << load;  // a spike of one sample is no load
  }
  EXPECT_NEAR(Listed().load(), 0.25, 0.001);
  for (int i = 0; i < 3; ++i) Beat(*worker, 0.75);
  EXPECT_FALSE(Listed().accepting());
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch waiting, Create(Wish()));
  EXPECT_EQ(JobOf(waiting.id()).state(), v1::JOB_STATE_PENDING);
  for (int i = 0; i < 3; ++i) Beat(*worker, 0.25);
  EXPECT_TRUE(worker->Await(v1::ConnectResponse::kGo).has_value());
  v1::Register wrong = EchoWorker("AW_2");
  wrong.set_load_threshold(1.5);
  FakeWorker refused(*broker_, wrong, token_);
  EXPECT_THAT(refused.End(), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(BrokerMatchingTest, ManyCreatesEachSucceedOrFailByThemselves) {
  auto worker = Connect(EchoWorker("AW_1", 2));
  v1::CreateDispatchesRequest request;
  for (int i = 0; i < 30; ++i) *request.add_requests() = Wish("echo", "room-" + std::to_string(i));
  request.mutable_requests(7)->clear_room();
  request.mutable_requests(8)->set_idempotency_key("k");
  request.mutable_requests(9)->CopyFrom(request.requests(8));
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::CreateDispatchesResponse response,
                              Call(&v1::DispatchService::Stub::CreateDispatches, request, token_));
  ASSERT_EQ(response.results_size(), 30);
  std::set<std::string> ids;
  for (int i = 0; i < 30; ++i) {
    const auto& result = response.results(i);
    EXPECT_EQ(result.code(), i == 7 ? 3 : 0) << i << " " << result.message();
    if (i == 7) continue;
    EXPECT_EQ(result.dispatch().room(), "room-" + std::to_string(i == 9 ? 8 : i));
    ids.insert(result.dispatch().id());
    // What the answer says without reading it back is what is stored.
    const v1::Job stored = JobOf(result.dispatch().id());
    ASSERT_EQ(result.dispatch().jobs_size(), 1);
    v1::Job said = result.dispatch().jobs(0);
    said.clear_update_time();
    v1::Job kept = stored;
    kept.clear_update_time();
    EXPECT_EQ(said.SerializeAsString(), kept.SerializeAsString())
        << said.DebugString() << kept.DebugString();
  }
  EXPECT_EQ(ids.size(), 28u);
  EXPECT_TRUE(worker->Await(v1::ConnectResponse::kGo).has_value());
  while (request.requests_size() <= 100) request.add_requests();
  EXPECT_THAT(Call(&v1::DispatchService::Stub::CreateDispatches, request, token_),
              HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(BrokerMatchingTest, DeletedAgentsJobsKeepTheirPinnedDefinition) {
  registry_redis::RedisAgentStore agents(pool());
  registry::AgentRecord record;
  record.project = "default";
  record.id = record.agent_name = record.name = "desk";
  record.pool = "default";
  record.definition_json = R"({"agent_name":"desk","id":"desk","name":"desk","pool":"default"})";
  record.content_hash = "1";
  PARLEY_ASSERT_OK(agents.Register(record));
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(Wish("desk")));
  PARLEY_ASSERT_OK(agents.Delete("default", "desk"));
  EXPECT_THAT(agents.Get("default", "desk", 1), HasCode(absl::StatusCode::kNotFound));
  v1::Register request = EchoWorker("AW_1");
  request.clear_agent_names();
  request.set_serves_configured(true);
  request.set_pool("default");
  auto worker = Connect(request);
  const auto go = worker->Await(v1::ConnectResponse::kGo);
  ASSERT_TRUE(go.has_value());
  EXPECT_EQ(go->go().definition_json(), record.definition_json);
  EXPECT_EQ(JobOf(dispatch.id()).state(), v1::JOB_STATE_ASSIGNED);
}

TEST_F(BrokerMatchingTest, RoomServersReportBringsTheAgentAndOthersMayNotReport) {
  auto worker = Connect(EchoWorker("AW_1"));
  v1::CreateDispatchRequest wish = Wish();
  wish.set_while_present(true);
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(wish));
  EXPECT_EQ(dispatch.jobs_size(), 0);
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch same, Create(wish));
  EXPECT_EQ(same.id(), dispatch.id());
  v1::ReportPresenceRequest report;
  v1::RoomPresence& room = *report.add_rooms();
  room.set_project("default");
  room.set_room("lobby");
  room.set_room_sid("RM_1");
  room.set_version(1);
  room.add_people()->set_identity("ann");
  EXPECT_THAT(Call(&v1::DispatchService::Stub::ReportPresence, report, token_),
              HasCode(absl::StatusCode::kUnauthenticated));
  PARLEY_ASSERT_OK_AND_ASSIGN(
      const v1::ReportPresenceResponse response,
      Call(&v1::DispatchService::Stub::ReportPresence, report, ServiceToken()));
  ASSERT_EQ(response.watched_room_sids_size(), 1);
  const auto go = worker->Await(v1::ConnectResponse::kGo);
  ASSERT_TRUE(go.has_value());
  EXPECT_EQ(go->go().assignment().dispatch_id(), dispatch.id());
  EXPECT_TRUE(go->go().assignment().while_present());
  // Its session is known while it runs.
  v1::GetSessionRequest get;
  get.set_session_id(go->go().assignment().session_id());
  EXPECT_TRUE(
      Eventually([&] { return Call(&v1::DispatchService::Stub::GetSession, get, token_).ok(); }));
  report.mutable_rooms(0)->clear_room();
  EXPECT_THAT(Call(&v1::DispatchService::Stub::ReportPresence, report, ServiceToken()),
              HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(BrokerMatchingTest, DeadlineFailsWithItsReasonWithinASecond) {
  v1::CreateDispatchRequest wish = Wish();
  wish.mutable_queue_deadline()->set_nanos(300'000'000);
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(wish));
  ASSERT_TRUE(Eventually([&] { return JobOf(dispatch.id()).state() == v1::JOB_STATE_FAILED; }));
  const v1::Job job = JobOf(dispatch.id());
  EXPECT_EQ(job.reason(), v1::JOB_REASON_NO_WORKER_BEFORE_DEADLINE);
  const auto ms = [](const google::protobuf::Timestamp& time) {
    return time.seconds() * 1000 + time.nanos() / 1'000'000;
  };
  EXPECT_GE(ms(job.end_time()), ms(job.deadline()));
  EXPECT_LT(ms(job.end_time()), ms(job.deadline()) + 1000);
}

}  // namespace
}  // namespace parley
