// The broker over real gRPC: dispatches, workers, events, and a Redis that goes away.
#include <signal.h>

#include <algorithm>
#include <functional>
#include <set>

#include "base/ids.h"
#include "broker_fixture.h"
#include "registry/definition.h"
#include "registry_redis/store.h"

namespace parley {
namespace {

using testing::Eventually;
using testing::HasCode;
using testing::HasReason;

// Reads the lines after the fifth, to the end.
template <typename OnLine>
absl::Status ReadLogs(v1::DispatchService::Stub& stub, const std::string& job,
                      const std::string& token, OnLine on_line,
                      const std::function<void(grpc::ClientContext&)>& started = {}) {
  grpc::ClientContext context;
  rpc::SetBearer(context, token);
  rpc::SetTimeout(context, absl::Seconds(10));
  v1::ReadJobLogsRequest request;
  request.set_job_id(job);
  request.set_after(5);
  request.set_follow(true);
  const auto reader = stub.ReadJobLogs(&context, request);
  if (started) started(context);
  v1::ReadJobLogsResponse response;
  while (reader->Read(&response)) {
    for (const v1::JobLogLine& line : response.lines()) on_line(line);
  }
  return rpc::FromGrpcStatus(reader->Finish());
}

std::string LogReader(RunningBroker& broker) {
  auth::Claims claims;
  claims.agent_admin = true;
  return auth::Sign(claims, broker.context().keys()->keys()[0], absl::Hours(1));
}

TEST_F(DispatchBrokerTest, LinesOfAJobComeFromItsAgentServer) {
  const auto read = [this](const std::string& job, const std::string& token, auto on_line) {
    return ReadLogs(*stub_, job, token, on_line);
  };
  const std::string admin = LogReader(*broker_);
  const auto nothing = [](const v1::JobLogLine&) { FAIL(); };

  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(Wish()));
  const std::string job = JobOf(dispatch.id()).id();
  EXPECT_THAT(read(job, token_, nothing), HasReason("GRANT_MISSING"));
  EXPECT_THAT(read(job, admin, nothing), HasReason("NO_WORKER"));  // it waits still
  auto worker = Connect(EchoWorker("AW_1"));
  ASSERT_TRUE(worker->Await(v1::ConnectResponse::kGo).has_value());
  // Asked under a number, told in pieces.
  std::vector<std::string> heard;
  std::promise<absl::Status> done;
  std::thread client([&] {
    done.set_value(
        read(job, admin, [&](const v1::JobLogLine& line) { heard.push_back(line.message()); }));
  });
  const auto asked = worker->Await(v1::ConnectResponse::kReadLogs);
  ASSERT_TRUE(asked.has_value());
  EXPECT_EQ(asked->read_logs().job_id(), job);
  EXPECT_EQ(asked->read_logs().after(), 5);
  EXPECT_TRUE(asked->read_logs().follow());
  for (const char* text : {"one", "two"}) {
    v1::ConnectRequest chunk;
    chunk.mutable_log()->set_request(asked->read_logs().request());
    chunk.mutable_log()->add_lines()->set_message(text);
    chunk.mutable_log()->set_end(std::string_view(text) == "two");
    worker->Send(std::move(chunk));
  }
  client.join();
  PARLEY_EXPECT_OK(done.get_future().get());
  EXPECT_EQ(heard, (std::vector<std::string>{"one", "two"}));
  // A stream that breaks ends its readers; an agent server that is gone is named.
  std::promise<absl::Status> cut;
  std::thread other([&] { cut.set_value(read(job, admin, nothing)); });
  ASSERT_TRUE(worker->Await(v1::ConnectResponse::kReadLogs).has_value());
  worker.reset();
  other.join();
  EXPECT_THAT(cut.get_future().get(), HasCode(absl::StatusCode::kUnavailable));
  EXPECT_THAT(read(job, admin, nothing), HasReason("WORKER_ELSEWHERE"));  // its lease runs on
}

TEST_F(DispatchBrokerTest, LinesOfAJobAreReadThroughAnyBroker) {
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(Wish()));
  const std::string job = JobOf(dispatch.id()).id();
  auto worker = Connect(EchoWorker("AW_1"));  // at the first broker
  ASSERT_TRUE(worker->Await(v1::ConnectResponse::kGo).has_value());
  RunningBroker other(PoolConfig());
  const auto stub = v1::DispatchService::NewStub(other.channel());
  const std::string reader = LogReader(other);
  const auto nothing = [](const v1::JobLogLine&) { FAIL(); };
  EXPECT_THAT(ReadLogs(*stub, job, token_, nothing), HasReason("GRANT_MISSING"));

  std::vector<std::string> heard;
  std::promise<absl::Status> done;
  std::thread client([&] {
    done.set_value(ReadLogs(*stub, job, reader,
                            [&](const v1::JobLogLine& line) { heard.push_back(line.message()); }));
  });
  const auto asked = worker->Await(v1::ConnectResponse::kReadLogs);
  EXPECT_TRUE(asked.has_value());
  const v1::ReadLogs question = asked.value_or(v1::ConnectResponse()).read_logs();
  EXPECT_EQ(question.job_id(), job);
  EXPECT_EQ(question.after(), 5);
  EXPECT_TRUE(question.follow());
  for (const char* text : {"one", "two"}) {
    v1::ConnectRequest chunk;
    chunk.mutable_log()->set_request(question.request());
    chunk.mutable_log()->add_lines()->set_message(text);
    chunk.mutable_log()->set_end(std::string_view(text) == "two");
    worker->Send(std::move(chunk));
  }
  client.join();
  PARLEY_EXPECT_OK(done.get_future().get());
  EXPECT_EQ(heard, (std::vector<std::string>{"one", "two"}));

  // A reader that leaves is forgotten at the agent server, too.
  std::promise<grpc::ClientContext*> context;
  std::thread leaver([&] {
    EXPECT_THAT(ReadLogs(*stub, job, reader, nothing, [&](auto& own) { context.set_value(&own); }),
                HasCode(absl::StatusCode::kCancelled));
  });
  grpc::ClientContext* const own = context.get_future().get();
  const auto again = worker->Await(v1::ConnectResponse::kReadLogs);
  EXPECT_TRUE(again.has_value());
  own->TryCancel();
  const auto cancelled = worker->Await(v1::ConnectResponse::kReadLogs);
  leaver.join();
  ASSERT_TRUE(cancelled.has_value());
  EXPECT_TRUE(cancelled->read_logs().cancel());
  EXPECT_EQ(cancelled->read_logs().request(), again->read_logs().request());

  // While the stream is nowhere: said as such, not asked in circles.
  worker.reset();
  EXPECT_TRUE(Eventually([&] {
    return ReasonOf(ReadLogs(*stub, job, reader, nothing)).reason == "WORKER_ELSEWHERE";
  }));
  // It comes back at the other one, and the first one asks there.
  v1::Register back = EchoWorker("AW_1");
  back.set_connect_seq(2);
  FakeWorker moved(other, back, token_);
  ASSERT_TRUE(moved.Await(v1::ConnectResponse::kRegistered).has_value());
  std::thread backwards(
      [&] { EXPECT_THAT(ReadLogs(*stub_, job, reader, nothing), HasReason("NO_WORKER")); });
  const auto third = moved.Await(v1::ConnectResponse::kReadLogs);
  EXPECT_TRUE(third.has_value());
  v1::ConnectRequest chunk;
  chunk.mutable_log()->set_request(third.value_or(v1::ConnectResponse()).read_logs().request());
  chunk.mutable_log()->set_end(true);
  chunk.mutable_log()->set_error("nothing is kept of it");
  moved.Send(std::move(chunk));
  backwards.join();
}

TEST_F(DispatchBrokerTest, JobRunsFromCreateToItsSessionRecord) {
  auto worker = Connect(EchoWorker("AW_1"));
  v1::CreateDispatchRequest wish = Wish();
  wish.set_metadata("hello");
  (*wish.mutable_attributes())["k"] = "v";
  wish.set_session_id("AS_known");
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(wish));
  EXPECT_EQ(dispatch.pool(), "echo");
  EXPECT_EQ(dispatch.state(), v1::DISPATCH_STATE_ACTIVE);
  const auto go = worker->Await(v1::ConnectResponse::kGo);
  ASSERT_TRUE(go.has_value());
  const v1::Assignment& assignment = go->go().assignment();
  EXPECT_EQ(assignment.metadata(), "hello");
  EXPECT_EQ(assignment.attributes().at("k"), "v");
  EXPECT_EQ(assignment.attempt(), 1);
  EXPECT_EQ(assignment.session_id(), "AS_known");
  EXPECT_EQ(assignment.fencing_token(), go->go().fencing_token());

  PARLEY_ASSERT_OK_AND_ASSIGN(const auth::Claims claims,
                              broker_->context().AuthenticateToken(go->go().room_token()));
  EXPECT_FALSE(claims.is_service());
  EXPECT_EQ(claims.identity, "agent-" + assignment.job_id());
  EXPECT_EQ(claims.kind, "agent");
  EXPECT_EQ(claims.project, "default");
  EXPECT_EQ(claims.video.room, "lobby");
  EXPECT_TRUE(claims.video.room_join);
  EXPECT_EQ(claims.attributes.at("lk.agent_name"), "echo");
  ASSERT_TRUE(claims.job.has_value());
  EXPECT_EQ(claims.job->fencing_token, assignment.fencing_token());
  EXPECT_EQ(claims.job->worker_id, "AW_1");

  worker->Say(assignment.job_id(), assignment.fencing_token(), v1::Word::STARTED);
  EXPECT_TRUE(Eventually([&] { return JobOf(dispatch.id()).state() == v1::JOB_STATE_RUNNING; }));
  worker->Say(assignment.job_id(), assignment.fencing_token(), v1::Word::ENDED,
              v1::JOB_REASON_PARTICIPANTS_LEFT);
  ASSERT_TRUE(worker->Await(v1::ConnectResponse::kVerdicts).has_value());
  const auto verdicts = worker->Await(v1::ConnectResponse::kVerdicts);
  ASSERT_TRUE(verdicts.has_value());
  EXPECT_EQ(verdicts->verdicts().verdicts(0).outcome(), v1::WordVerdict::RECORDED);
  EXPECT_EQ(JobOf(dispatch.id()).reason(), v1::JOB_REASON_PARTICIPANTS_LEFT);

  v1::GetSessionRequest get;
  get.set_session_id("AS_known");
  EXPECT_TRUE(Eventually([&] {
    const auto session = Call(&v1::DispatchService::Stub::GetSession, get, token_);
    return session.ok() && session->session().usage().turns() == 4 &&
           session->session().state() == "ENDED" && session->session().jobs_size() == 1;
  }));
  v1::DeleteSessionRequest erase;
  erase.set_session_id("AS_known");
  PARLEY_EXPECT_OK(Call(&v1::DispatchService::Stub::DeleteSession, erase, token_));
  PARLEY_EXPECT_OK(Call(&v1::DispatchService::Stub::DeleteSession, erase, token_));
  EXPECT_THAT(Call(&v1::DispatchService::Stub::GetSession, get, token_),
              HasCode(absl::StatusCode::kNotFound));
}

TEST_F(DispatchBrokerTest, OfferIsAskedAndAnswered) {
  v1::Register request = EchoWorker("AW_1");
  request.set_accepts_all(false);
  auto worker = Connect(request);
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(Wish()));
  const auto offer = worker->Await(v1::ConnectResponse::kOffer);
  ASSERT_TRUE(offer.has_value());
  EXPECT_EQ(JobOf(dispatch.id()).state(), v1::JOB_STATE_OFFERED);
  const v1::Assignment& asked = offer->offer().assignment();
  worker->Say(asked.job_id(), asked.fencing_token(), v1::Word::ACCEPTED);
  const auto go = worker->Await(v1::ConnectResponse::kGo);
  ASSERT_TRUE(go.has_value());
  EXPECT_EQ(go->go().fencing_token(), asked.fencing_token());
  EXPECT_EQ(JobOf(dispatch.id()).state(), v1::JOB_STATE_ASSIGNED);
}

TEST_F(DispatchBrokerTest, WaitsForItsFirstWorkerAndEndsAtItsDeadline) {
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch waits, Create(Wish()));
  EXPECT_EQ(waits.jobs(0).state(), v1::JOB_STATE_PENDING);
  auto worker = Connect(EchoWorker("AW_1"));
  EXPECT_TRUE(worker->Await(v1::ConnectResponse::kGo).has_value());

  v1::CreateDispatchRequest nobody = Wish("nobody");
  nobody.mutable_queue_deadline()->set_nanos(100'000'000);
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch fails, Create(nobody));
  EXPECT_TRUE(Eventually(
      [&] { return JobOf(fails.id()).reason() == v1::JOB_REASON_NO_WORKER_BEFORE_DEADLINE; }));
}

TEST_F(DispatchBrokerTest, IdempotencyKeyAndRequestId) {
  v1::CreateDispatchRequest wish = Wish();
  wish.set_idempotency_key("RM_1/echo");
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch first, Create(wish));
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch second, Create(wish));
  EXPECT_EQ(first.id(), second.id());
  wish.set_metadata("other");
  EXPECT_THAT(Create(wish), HasReason("KEY_REUSED"));
  v1::CreateDispatchRequest named = Wish();
  named.set_request_id("r1");
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch once, Create(named));
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch twice, Create(named));
  EXPECT_EQ(once.id(), twice.id());
}

TEST_F(DispatchBrokerTest, WhatIsTooLargeIsRefusedByName) {
  v1::CreateDispatchRequest wish = Wish();
  wish.set_metadata(std::string((512 << 10) + 1, 'x'));
  EXPECT_THAT(Create(wish), HasCode(absl::StatusCode::kInvalidArgument));
  wish = Wish("echo", std::string(257, 'r'));
  const auto refused = Create(wish);
  EXPECT_THAT(refused, HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_NE(Message(refused.status()).find("room has 257 bytes"), std::string_view::npos);
  wish = Wish();
  (*wish.mutable_attributes())["k"] = std::string(64 << 10, 'x');
  EXPECT_THAT(Create(wish), HasCode(absl::StatusCode::kInvalidArgument));
  wish = Wish();
  wish.set_priority(10);
  EXPECT_THAT(Create(wish), HasCode(absl::StatusCode::kInvalidArgument));
  wish = Wish();
  wish.set_job_type(v1::JOB_TYPE_PUBLISHER);
  wish.set_while_present(true);
  EXPECT_THAT(Create(wish), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(DispatchBrokerTest, TokensAndGrants) {
  EXPECT_THAT(Create(Wish(), ""), HasCode(absl::StatusCode::kUnauthenticated));
  auth::VideoGrant join;
  join.room_join = true;
  join.room = "lobby";
  EXPECT_THAT(Create(Wish(), Token(broker_->context(), join)), HasReason("GRANT_MISSING"));
  auth::VideoGrant admin;
  admin.room_admin = true;
  admin.room = "lobby";
  const std::string of_lobby = Token(broker_->context(), admin);
  PARLEY_EXPECT_OK(Create(Wish(), of_lobby));
  EXPECT_THAT(Create(Wish("echo", "elsewhere"), of_lobby), HasReason("GRANT_MISSING"));
  EXPECT_THAT(
      Call(&v1::DispatchService::Stub::ListDispatches, v1::ListDispatchesRequest(), of_lobby),
      HasReason("GRANT_MISSING"));
  FakeWorker worker(*broker_, EchoWorker("AW_1"), of_lobby);
  EXPECT_THAT(worker.End(), HasReason("GRANT_MISSING"));
}

TEST_F(DispatchBrokerTest, ServicesMayNameTheProjectAndOthersSeeOnlyTheirs) {
  v1::CreateDispatchRequest wish = Wish();
  wish.set_project("hotel");
  EXPECT_THAT(Create(wish), HasCode(absl::StatusCode::kPermissionDenied));
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch,
                              Create(wish, broker_->context().ServiceToken()));
  EXPECT_EQ(dispatch.project(), "hotel");
  v1::GetDispatchRequest get;
  get.set_dispatch_id(dispatch.id());
  EXPECT_THAT(Call(&v1::DispatchService::Stub::GetDispatch, get, token_),
              HasCode(absl::StatusCode::kNotFound));
  PARLEY_EXPECT_OK(
      Call(&v1::DispatchService::Stub::GetDispatch, get, broker_->context().ServiceToken("hotel")));
  v1::DeleteDispatchRequest erase;
  erase.set_dispatch_id(dispatch.id());
  EXPECT_THAT(Call(&v1::DispatchService::Stub::DeleteDispatch, erase, token_),
              HasCode(absl::StatusCode::kNotFound));
}

TEST_F(DispatchBrokerTest, DefinitionsGoToTheirPoolPinned) {
  registry_redis::RedisAgentStore agents(pool());
  registry::AgentRecord record;
  record.project = "default";
  record.id = "front-desk";
  record.name = "Front desk";
  record.agent_name = "Desk";
  record.pool = "hotel-pool";
  record.definition_json =
      R"({"agent_name":"Desk","id":"front-desk","name":"Front desk","pool":"hotel-pool"})";
  record.content_hash = "1";
  PARLEY_ASSERT_OK(agents.Register(record));
  v1::Register request = EchoWorker("AW_1");
  request.clear_agent_names();
  request.set_serves_configured(true);
  request.set_pool("hotel-pool");
  auto worker = Connect(request);

  v1::CreateDispatchRequest by_metadata = Wish("");
  by_metadata.set_metadata(R"({"agentId": "front-desk"})");
  for (const v1::CreateDispatchRequest& wish :
       {Wish("Desk"), by_metadata, Wish("", "agent-front-desk-room")}) {
    PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(wish));
    EXPECT_EQ(dispatch.agent_name(), "Desk");
    EXPECT_EQ(dispatch.pool(), "hotel-pool");
    EXPECT_EQ(dispatch.agent_id(), "front-desk");
    EXPECT_EQ(dispatch.agent_version(), 1u);
    const auto go = worker->Await(v1::ConnectResponse::kGo);
    ASSERT_TRUE(go.has_value());
    EXPECT_EQ(go->go().definition_json(), record.definition_json);
  }
  // A name that a definition has is not a program's.
  v1::Register program = EchoWorker("AW_2");
  program.clear_agent_names();
  program.add_agent_names("Desk");
  FakeWorker refused(*broker_, program, token_);
  EXPECT_THAT(refused.End(), HasReason("NAME_TAKEN"));
}

TEST_F(DispatchBrokerTest, DeploymentsChooseTheVersionOfNewDispatchesOnly) {
  registry_redis::RedisAgentStore agents(pool());
  registry::AgentRecord record;
  record.project = "default";
  record.id = record.agent_name = "front-desk";
  record.pool = "hotel-pool";
  for (const char* hash : {"1", "2", "3"}) {
    record.content_hash = hash;
    record.definition_json = fmt::format(
        R"({{"agent_name":"front-desk","id":"front-desk","pool":"hotel-pool","greeting":"{}"}})",
        hash);
    PARLEY_ASSERT_OK(agents.Register(record));
  }
  const auto versions = [&](int rooms) {
    std::map<uint64_t, int> seen;
    for (int i = 0; i < rooms; ++i) {
      const auto dispatch = Create(Wish("front-desk", fmt::format("room-{}", i)));
      EXPECT_TRUE(dispatch.ok()) << dispatch.status();
      if (dispatch.ok()) ++seen[dispatch->agent_version()];
    }
    return seen;
  };
  using Seen = std::map<uint64_t, int>;
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch before, Create(Wish("front-desk", "live")));
  EXPECT_EQ(before.agent_version(), 3u) << "the newest, where nothing is deployed";
  registry::Deployment deployment;
  deployment.versions = {{1, 100}};
  PARLEY_ASSERT_OK(agents.SetDeployment("default", "front-desk", deployment));
  EXPECT_EQ(versions(3), (Seen{{1, 3}}));
  deployment.versions = {{2, 50}, {1, 50}};
  deployment.sticky = true;
  PARLEY_ASSERT_OK(agents.SetDeployment("default", "front-desk", deployment));
  const Seen mixed = versions(40);
  EXPECT_EQ(mixed.size(), 2u);
  EXPECT_EQ(versions(40), mixed) << "a room gets what it got";
  PARLEY_ASSERT_OK(agents.RollBack("default", "front-desk"));
  EXPECT_EQ(versions(3), (Seen{{1, 3}}));

  v1::GetDispatchRequest get;
  get.set_dispatch_id(before.id());
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto after,
                              Call(&v1::DispatchService::Stub::GetDispatch, get, token_));
  EXPECT_EQ(after.dispatch().agent_version(), 3u) << "a dispatch keeps its version";
}

TEST_F(DispatchBrokerTest, RoomsWithoutANameNeedSomebodyWhoServesThem) {
  EXPECT_THAT(Create(Wish("")), HasReason("UNSERVED"));
  v1::Register request = EchoWorker("AW_1");
  request.clear_agent_names();
  request.add_agent_names("");
  auto worker = Connect(request);
  PARLEY_ASSERT_OK(Create(Wish("")));
  EXPECT_TRUE(worker->Await(v1::ConnectResponse::kGo).has_value());
}

TEST_F(DispatchBrokerTest, RegistrationsAreChecked) {
  struct Case {
    const char* what;
    std::function<void(v1::Register&)> spoil;
  };
  const Case cases[] = {
      {"instance", [](v1::Register& r) { r.set_instance("short"); }},
      {"slots", [](v1::Register& r) { r.set_slots(0); }},
      {"worker_id", [](v1::Register& r) { r.set_worker_id("x y"); }},
      {"connect_seq", [](v1::Register& r) { r.set_connect_seq(0); }},
      {"serves nothing", [](v1::Register& r) { r.clear_agent_names(); }},
  };
  for (const Case& test : cases) {
    v1::Register request = EchoWorker("AW_1");
    test.spoil(request);
    FakeWorker worker(*broker_, request, token_);
    const absl::Status status = worker.End();
    EXPECT_THAT(status, HasCode(absl::StatusCode::kInvalidArgument));
    EXPECT_NE(Message(status).find(test.what), std::string_view::npos) << status;
  }
}

TEST_F(DispatchBrokerTest, DeathNoticeMovesTheJob) {
  auto first = Connect(EchoWorker("AW_1"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(Wish()));
  const auto go = first->Await(v1::ConnectResponse::kGo);
  ASSERT_TRUE(go.has_value());
  first->Say(go->go().job_id(), go->go().fencing_token(), v1::Word::STARTED);
  auto second = Connect(EchoWorker("AW_2"));
  first.reset();  // a lost stream proves nothing
  EXPECT_EQ(JobOf(dispatch.id()).worker_id(), "AW_1");

  auto workers = v1::WorkerService::NewStub(broker_->channel());
  v1::ReportDeathRequest notice;
  notice.set_worker_id("AW_1");
  notice.set_instance(std::string(32, 'a'));
  notice.set_connect_seq(1);
  for (const bool ended : {true, false}) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    v1::ReportDeathResponse response;
    ASSERT_TRUE(workers->ReportDeath(&context, notice, &response).ok());
    EXPECT_EQ(response.ended(), ended);
  }
  const auto again = second->Await(v1::ConnectResponse::kGo);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->go().assignment().attempt(), 2);
  EXPECT_TRUE(again->go().assignment().resuming());
  EXPECT_GT(again->go().fencing_token(), go->go().fencing_token());
}

TEST_F(DispatchBrokerTest, ReconnectKeepsTheJobAndReplacesTheOldStream) {
  auto first = Connect(EchoWorker("AW_1"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(Wish()));
  const auto go = first->Await(v1::ConnectResponse::kGo);
  ASSERT_TRUE(go.has_value());
  RunningBroker other(PoolConfig());
  v1::Register again = EchoWorker("AW_1");
  again.set_connect_seq(2);
  v1::ReportedJob& reported = *again.mutable_report()->add_jobs();
  reported.set_job_id(go->go().job_id());
  reported.set_fencing_token(go->go().fencing_token());
  reported.set_status(v1::ReportedJob::RUNNING);
  *reported.mutable_record() = go->go().assignment();
  FakeWorker second(other, again, token_);
  const auto registered = second.Await(v1::ConnectResponse::kRegistered);
  ASSERT_TRUE(registered.has_value());
  EXPECT_EQ(registered->registered().jobs(0).action(), v1::ResumeVerdict::KEEP);
  EXPECT_THAT(first->End(), HasReason("WORKER_REPLACED"));
  EXPECT_EQ(JobOf(dispatch.id()).state(), v1::JOB_STATE_RUNNING);
  // What this broker decides reaches the stream on the other one.
  v1::DeleteDispatchRequest erase;
  erase.set_dispatch_id(dispatch.id());
  PARLEY_ASSERT_OK(Call(&v1::DispatchService::Stub::DeleteDispatch, erase, token_));
  EXPECT_TRUE(second.Await(v1::ConnectResponse::kStop).has_value());
}

TEST_F(DispatchBrokerTest, HeartbeatsAreAnsweredAndWorkersListed) {
  auto worker = Connect(EchoWorker("AW_1", 7));
  worker->Beat(3);
  const auto ack = worker->Await(v1::ConnectResponse::kHeartbeatAck);
  ASSERT_TRUE(ack.has_value());
  EXPECT_EQ(ack->heartbeat_ack().seq(), 3u);
  EXPECT_TRUE(ack->heartbeat_ack().store_available());
  PARLEY_ASSERT_OK_AND_ASSIGN(
      const v1::ListWorkersResponse list,
      Call(&v1::DispatchService::Stub::ListWorkers, v1::ListWorkersRequest(), token_));
  ASSERT_EQ(list.workers_size(), 1);
  EXPECT_EQ(list.workers(0).slots(), 7);
  EXPECT_EQ(list.workers(0).state(), "LIVE");
  EXPECT_DOUBLE_EQ(list.workers(0).load(), 0.25);
  v1::DrainWorkerRequest drain;
  drain.set_worker_id("AW_1");
  PARLEY_ASSERT_OK(Call(&v1::DispatchService::Stub::DrainWorker, drain, token_));
  EXPECT_TRUE(worker->Await(v1::ConnectResponse::kDrain).has_value());
}

TEST_F(DispatchBrokerTest, EventsAreWatchedAndResumed) {
  const auto watch = [&](const std::string& after, size_t count) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, absl::Seconds(10));
    v1::WatchEventsRequest request;
    request.set_after_position(after);
    auto reader = stub_->WatchEvents(&context, request);
    std::vector<v1::Event> events;
    v1::WatchEventsResponse response;
    while (events.size() < count && reader->Read(&response)) events.push_back(response.event());
    context.TryCancel();
    return events;
  };
  PARLEY_ASSERT_OK(Create(Wish()));
  auto late = std::async(std::launch::async, watch, "0", 6);
  auto worker = Connect(EchoWorker("AW_1"));  // its pool's jobs go on while somebody watches
  PARLEY_ASSERT_OK(Create(Wish("other")));    // another pool
  const std::vector<v1::Event> events = late.get();
  ASSERT_EQ(events.size(), 6u);
  EXPECT_EQ(events[0].type(), "dispatch_created");
  EXPECT_EQ(events[1].type(), "job_pending");
  const std::vector<v1::Event> rest = watch(events[2].position(), 3);
  ASSERT_EQ(rest.size(), 3u);
  std::set<std::string> seen;
  for (const v1::Event& event : rest) seen.insert(event.pool() + event.type() + event.job_id());
  for (size_t i = 3; i < 6; ++i) {
    EXPECT_TRUE(seen.contains(events[i].pool() + events[i].type() + events[i].job_id()));
  }
  const auto bad = watch("nonsense", 1);
  EXPECT_TRUE(bad.empty());
}

TEST_F(DispatchBrokerTest, ThePastEnds) {
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch first, Create(Wish()));
  PARLEY_ASSERT_OK(Create(Wish("other")));  // another pool
  const auto past = [&](const std::string& after, const std::string& dispatch) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, absl::Seconds(10));
    v1::WatchEventsRequest request;
    request.set_after_position(after);
    request.set_dispatch_id(dispatch);
    request.set_past_only(true);
    auto reader = stub_->WatchEvents(&context, request);
    std::vector<v1::Event> events;
    v1::WatchEventsResponse response;
    while (reader->Read(&response)) events.push_back(response.event());
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return events;
  };
  const std::vector<v1::Event> all = past("0", "");
  EXPECT_EQ(all.size(), 4u);  // created and pending, twice
  EXPECT_EQ(past("0", first.id()).size(), 2u);
  EXPECT_EQ(past(all[2].position(), "").size(), 1u);
  EXPECT_TRUE(past(all[3].position(), "").empty());
  EXPECT_TRUE(past("", "").empty());
}

TEST_F(DispatchBrokerTest, RedisAwayRefusesCreatesAtOnceAndKeepsWorkers) {
  auto worker = Connect(EchoWorker("AW_1"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(Wish()));
  const auto go = worker->Await(v1::ConnectResponse::kGo);
  ASSERT_TRUE(go.has_value());
  worker->Say(go->go().job_id(), go->go().fencing_token(), v1::Word::STARTED);
  ASSERT_TRUE(worker->Await(v1::ConnectResponse::kVerdicts).has_value());
  PARLEY_ASSERT_OK(pool().Command({"CONFIG", "SET", "appendfsync", "always"}));
  PARLEY_ASSERT_OK(pool().Command({"SET", "flushed", "1"}));

  kill(server().pid(), SIGSTOP);  // worse than dead: it does not answer
  const absl::Duration quickest = testing::Quickest(4, [&] {
    const auto refused = Create(Wish());
    EXPECT_THAT(refused, HasCode(absl::StatusCode::kUnavailable));
    EXPECT_THAT(refused, HasReason("STORE_UNAVAILABLE"));
  });
  EXPECT_LT(quickest, absl::Milliseconds(600));  // 500, and the way there
  uint64_t seq = 1;
  EXPECT_TRUE(Eventually([&] {
    worker->Beat(seq++);
    const auto ack = worker->Await(v1::ConnectResponse::kHeartbeatAck);
    return ack && !ack->heartbeat_ack().store_available();
  }));
  worker->Say(go->go().job_id(), go->go().fencing_token(), v1::Word::ENDED,
              v1::JOB_REASON_SHUTDOWN);
  kill(server().pid(), SIGCONT);
  // The word waited on the stream.
  EXPECT_TRUE(Eventually([&] { return Create(Wish()).ok(); }));
  EXPECT_TRUE(Eventually([&] { return JobOf(dispatch.id()).state() == v1::JOB_STATE_SUCCEEDED; }));
}

TEST_F(DispatchBrokerTest, RedisRestartAsksForReportsAndLosesNothing) {
  auto worker = Connect(EchoWorker("AW_1"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const v1::Dispatch dispatch, Create(Wish()));
  const auto go = worker->Await(v1::ConnectResponse::kGo);
  ASSERT_TRUE(go.has_value());
  worker->Say(go->go().job_id(), go->go().fencing_token(), v1::Word::STARTED);
  ASSERT_TRUE(worker->Await(v1::ConnectResponse::kVerdicts).has_value());
  PARLEY_ASSERT_OK(pool().Command({"FLUSHALL"}));  // the worst: all data gone
  server().Kill();
  PARLEY_ASSERT_OK(server().Restart());
  ASSERT_TRUE(worker->Await(v1::ConnectResponse::kReportRequest).has_value());
  v1::ConnectRequest report;
  v1::ReportedJob& reported = *report.mutable_report()->add_jobs();
  reported.set_job_id(go->go().job_id());
  reported.set_fencing_token(go->go().fencing_token());
  reported.set_status(v1::ReportedJob::RUNNING);
  *reported.mutable_record() = go->go().assignment();
  worker->Send(std::move(report));
  ASSERT_TRUE(worker->Await(v1::ConnectResponse::kRegistered).has_value());
  EXPECT_EQ(JobOf(dispatch.id()).state(), v1::JOB_STATE_RUNNING);
  EXPECT_TRUE(Eventually([&] { return Create(Wish()).ok(); }));
  EXPECT_TRUE(worker->Await(v1::ConnectResponse::kGo).has_value());
}

TEST_F(DispatchBrokerTest, CreatedToRunningIsQuick) {
  auto worker = Connect(EchoWorker("AW_1", 1000));
  std::vector<double> ms;
  for (int i = 0; i < 200; ++i) {
    const absl::Time start = absl::Now();
    PARLEY_ASSERT_OK(Create(Wish()));
    ASSERT_TRUE(worker->Await(v1::ConnectResponse::kGo).has_value());
    ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
  }
  std::sort(ms.begin(), ms.end());
  fmt::print("create to go: p50 {:.2f} ms, p99 {:.2f} ms (waits in steps of 2 ms)\n", ms[100],
             ms[198]);
  EXPECT_LT(ms[100], 50);  // matching waits for no tick
}

}  // namespace
}  // namespace parley
