// LiveKit's worker protocol on the real api_server, with the real broker and room server behind it:
// every message, and everything that a worker can get wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/status.h"
#include "http/client.h"
#include "parley/dispatch/v1/dispatch.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/status.h"
#include "testing/cluster.h"
#include "testing/matchers.h"
#include "testing/scripted_worker.h"

namespace parley {
namespace {

namespace lk = ::parley::livekit::v1;
namespace v1 = ::parley::dispatch::v1;
using testing::Eventually;
using ::testing::HasSubstr;
using testing::ScriptedWorker;
using ::testing::StartsWith;

// The long form waits for leases and deadlines to pass; the short one only begins to.
bool Long() { return getenv("PARLEY_LIVEKIT_LONG") != nullptr; }

class LivekitWorkerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    testing::ClusterOptions options;
    options.services = {"room-server", "dispatch-broker", "api-server"};
    options.agent_servers = 0;
    auto cluster = testing::Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = cluster->release();
    stub_ = v1::DispatchService::NewStub(rpc::MakeChannel(cluster_->Address("dispatch-broker")))
                .release();
  }
  static void TearDownTestSuite() {
    delete stub_;
    delete cluster_;
  }
  void SetUp() override {
    agent_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }

  static std::string Address() { return cluster_->Address("api-server"); }
  template <typename Request, typename Response>
  static Response Call(grpc::Status (v1::DispatchService::Stub::*method)(grpc::ClientContext*,
                                                                         const Request&, Response*),
                       const Request& request) {
    auth::Claims claims;
    claims.video.room_create = claims.video.room_list = claims.video.agent = true;
    grpc::ClientContext context;
    rpc::SetBearer(context,
                   auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1)));
    rpc::SetTimeout(context, absl::Seconds(20));
    Response response;
    const grpc::Status status = (stub_->*method)(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  v1::CreateDispatchRequest Wish(const std::string& room = "lobby") const {
    v1::CreateDispatchRequest request;
    request.set_agent_name(agent_);
    request.set_room(room);
    return request;
  }
  static std::string Create(const v1::CreateDispatchRequest& request) {
    return Call(&v1::DispatchService::Stub::CreateDispatch, request).dispatch().id();
  }
  static v1::Job JobOf(const std::string& dispatch_id) {
    v1::GetDispatchRequest request;
    request.set_dispatch_id(dispatch_id);
    const auto response = Call(&v1::DispatchService::Stub::GetDispatch, request);
    return response.dispatch().jobs_size() > 0 ? response.dispatch().jobs(0) : v1::Job();
  }
  static bool Becomes(const std::string& dispatch_id, v1::JobState state) {
    return Eventually([&] { return JobOf(dispatch_id).state() == state; });
  }
  static void Delete(const std::string& dispatch_id) {
    v1::DeleteDispatchRequest request;
    request.set_dispatch_id(dispatch_id);
    Call(&v1::DispatchService::Stub::DeleteDispatch, request);
  }

  static testing::Cluster* cluster_;
  static v1::DispatchService::Stub* stub_;
  std::string agent_;  // a name of each test's own
};
testing::Cluster* LivekitWorkerTest::cluster_ = nullptr;
v1::DispatchService::Stub* LivekitWorkerTest::stub_ = nullptr;

// ---- what it is for ----

TEST_F(LivekitWorkerTest, RunsAJob) {
  ScriptedWorker worker(Address());
  ASSERT_EQ(worker.status(), 101);
  const std::string worker_id = worker.Register(agent_);
  ASSERT_THAT(worker_id, StartsWith("AW_"));

  v1::CreateDispatchRequest wish = Wish("suite");
  wish.set_metadata("{\"floor\":3}");
  (*wish.mutable_attributes())["lang"] = "en";
  const std::string dispatch = Create(wish);
  const auto asked = worker.Await(lk::ServerMessage::kAvailability);
  ASSERT_TRUE(asked.has_value());
  const lk::Job& job = asked->availability().job();
  EXPECT_FALSE(asked->availability().resuming());
  EXPECT_EQ(job.type(), lk::JT_ROOM);
  EXPECT_EQ(job.room().name(), "suite");
  EXPECT_EQ(job.metadata(), "{\"floor\":3}");
  EXPECT_EQ(job.attributes().at("lang"), "en");
  EXPECT_EQ(job.agent_name(), agent_);
  EXPECT_EQ(job.dispatch_id(), dispatch);
  EXPECT_EQ(job.id(), JobOf(dispatch).id());

  lk::WorkerMessage answer;
  answer.mutable_availability()->set_job_id(job.id());
  answer.mutable_availability()->set_available(true);
  answer.mutable_availability()->set_participant_identity("concierge");
  answer.mutable_availability()->set_participant_name("The concierge");
  answer.mutable_availability()->set_participant_metadata("m");
  (*answer.mutable_availability()->mutable_participant_attributes())["lk.agent.name"] = agent_;
  worker.Send(answer);
  const auto given = worker.Await(lk::ServerMessage::kAssignment);
  ASSERT_TRUE(given.has_value());
  EXPECT_EQ(given->assignment().job().id(), job.id());
  EXPECT_EQ(given->assignment().job().state().worker_id(), worker_id);
  EXPECT_FALSE(given->assignment().has_url());
  // The cluster's key signs it; that a room lets it in is for the real workers to show.
  EXPECT_THAT(given->assignment().token(), HasSubstr("."));

  worker.Say(job.id(), lk::JS_RUNNING);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_RUNNING));
  EXPECT_EQ(JobOf(dispatch).worker_id(), worker_id);
  worker.Say(job.id(), lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(JobOf(dispatch).reason(), v1::JOB_REASON_SHUTDOWN);
}

TEST_F(LivekitWorkerTest, AnswersInTheEncodingOfTheLastFrame) {
  ScriptedWorker worker(Address());
  worker.SendFrame(ScriptedWorker::kText,
                   "{\"register\":{\"agentName\":\"" + agent_ + "\",\"newField\":[1]}}");
  ASSERT_TRUE(worker.Await(lk::ServerMessage::kRegister).has_value());
  EXPECT_TRUE(worker.last_was_text());
  EXPECT_THAT(worker.last_text(), HasSubstr("\"workerId\":\"AW_"));
  lk::WorkerMessage ping;
  ping.mutable_ping()->set_timestamp(17);
  worker.Send(ping);
  const auto pong = worker.Await(lk::ServerMessage::kPong);
  ASSERT_TRUE(pong.has_value());
  EXPECT_FALSE(worker.last_was_text());
  EXPECT_EQ(pong->pong().last_timestamp(), 17);
  EXPECT_NEAR(static_cast<double>(pong->pong().timestamp()),
              static_cast<double>(absl::ToUnixMillis(absl::Now())), 5000);
}

TEST_F(LivekitWorkerTest, FailedJobIsTriedAgainAsResuming) {
  ScriptedWorker worker(Address());
  worker.Register(agent_);
  const std::string dispatch = Create(Wish());
  const std::string first = worker.TakeJob();
  worker.Say(first, lk::JS_FAILED, "boom");
  const auto asked = worker.Await(lk::ServerMessage::kAvailability);
  ASSERT_TRUE(asked.has_value());
  EXPECT_TRUE(asked->availability().resuming());
  EXPECT_EQ(asked->availability().job().id(), first + "-2");
  EXPECT_EQ(JobOf(dispatch).previous_reason(), v1::JOB_REASON_ENTRYPOINT_ERROR);
  EXPECT_EQ(JobOf(dispatch).error(), "boom");
  worker.Answer(first + "-2", true);
  ASSERT_TRUE(worker.Await(lk::ServerMessage::kAssignment).has_value());
  worker.Say(first, lk::JS_SUCCESS);  // of the attempt before: about this one it says nothing
  worker.Say(first + "-2", lk::JS_RUNNING);
  ASSERT_TRUE(Becomes(dispatch, v1::JOB_STATE_RUNNING));
  EXPECT_EQ(JobOf(dispatch).attempt(), 2);
  worker.Say(first + "-2", lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_SUCCEEDED));
}

TEST_F(LivekitWorkerTest, RejectionEndsTheSearchOnlyWhenItSaysSo) {
  ScriptedWorker first(Address());
  first.Register(agent_);
  std::string dispatch = Create(Wish());
  auto asked = first.Await(lk::ServerMessage::kAvailability);
  ASSERT_TRUE(asked.has_value());
  first.Answer(asked->availability().job().id(), false, true);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_FAILED));
  EXPECT_EQ(JobOf(dispatch).reason(), v1::JOB_REASON_REJECTED);

  dispatch = Create(Wish());
  asked = first.Await(lk::ServerMessage::kAvailability);
  ASSERT_TRUE(asked.has_value());
  ScriptedWorker second(Address());
  second.Register(agent_);
  first.Answer(asked->availability().job().id(), false);
  const std::string job = second.TakeJob();
  EXPECT_EQ(job, asked->availability().job().id());
  EXPECT_EQ(JobOf(dispatch).attempt(), 1);
  second.Say(job, lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_SUCCEEDED));
}

TEST_F(LivekitWorkerTest, FullWorkerIsLeftAloneUntilItIsNot) {
  ScriptedWorker worker(Address());
  worker.Register(agent_);
  worker.SayStatus(lk::WS_FULL, 0.9F);
  const auto accepting = [&] {
    v1::ListWorkersRequest request;
    request.set_pool(agent_);
    const auto response = Call(&v1::DispatchService::Stub::ListWorkers, request);
    return response.workers_size() == 1 && response.workers(0).accepting();
  };
  ASSERT_TRUE(Eventually([&] { return !accepting(); }));
  const std::string dispatch = Create(Wish());
  EXPECT_FALSE(worker.Await(lk::ServerMessage::kAvailability, absl::Milliseconds(700)));
  EXPECT_EQ(JobOf(dispatch).state(), v1::JOB_STATE_PENDING);
  worker.SayStatus(lk::WS_AVAILABLE, 0.2F);
  const std::string job = worker.TakeJob();
  EXPECT_EQ(job, JobOf(dispatch).id());
  worker.Say(job, lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_SUCCEEDED));
}

TEST_F(LivekitWorkerTest, TerminationReachesTheWorker) {
  ScriptedWorker worker(Address());
  worker.Register(agent_);
  const std::string dispatch = Create(Wish());
  const std::string job = worker.TakeJob();
  ASSERT_TRUE(Becomes(dispatch, v1::JOB_STATE_RUNNING));
  Delete(dispatch);
  const auto told = worker.Await(lk::ServerMessage::kTermination);
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(told->termination().job_id(), job);
  worker.Say(job, lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_CANCELLED));
}

TEST_F(LivekitWorkerTest, NoAnswerIsNoLostJob) {
  ScriptedWorker silent(Address());
  silent.Register(agent_);
  const std::string dispatch = Create(Wish());
  ASSERT_TRUE(silent.Await(lk::ServerMessage::kAvailability).has_value());
  ScriptedWorker second(Address());
  second.Register(agent_);
  const std::string job = second.TakeJob();
  EXPECT_EQ(job, JobOf(dispatch).id());
  silent.Answer(job, true);  // far too late: nothing comes of it
  second.Say(job, lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_SUCCEEDED));
  EXPECT_FALSE(silent.Await(lk::ServerMessage::kAssignment, absl::Milliseconds(300)));
}

// Of many at once most wait in their worker for a process: it says nothing of them until they run.
TEST_F(LivekitWorkerTest, WhatWaitsForItsProcessIsNotStartedTwice) {
  ScriptedWorker worker(Address());
  worker.Register(agent_);
  const std::string first = Create(Wish());
  worker.Say(worker.TakeJob(), lk::JS_RUNNING);
  ASSERT_TRUE(Becomes(first, v1::JOB_STATE_RUNNING));
  const std::string second = Create(Wish("another"));
  const auto asked = worker.Await(lk::ServerMessage::kAvailability);
  ASSERT_TRUE(asked.has_value());
  worker.Answer(asked->availability().job().id(), true);
  ASSERT_TRUE(worker.Await(lk::ServerMessage::kAssignment).has_value());
  // The broker waits 10 s for a start: before they are over the API says that it runs.
  ASSERT_TRUE(Becomes(second, v1::JOB_STATE_RUNNING));
  EXPECT_FALSE(worker.Await(lk::ServerMessage::kAvailability, absl::Seconds(Long() ? 12 : 1)));
  EXPECT_EQ(JobOf(second).state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(JobOf(second).attempt(), 1);
}

TEST_F(LivekitWorkerTest, WorkersOfOneNameShareAndDeploymentsDoNotMix) {
  ScriptedWorker one(Address()), two(Address()), staging(Address());
  one.Register(agent_);
  two.Register(agent_);
  staging.Register(agent_, "staging");
  std::vector<std::string> dispatches;
  for (int i = 0; i < 8; ++i) dispatches.push_back(Create(Wish()));
  int taken[2] = {0, 0};
  for (int i = 0; i < 40 && taken[0] + taken[1] < 8; ++i) {
    taken[0] += one.TakeJob(absl::Milliseconds(100)).empty() ? 0 : 1;
    taken[1] += two.TakeJob(absl::Milliseconds(100)).empty() ? 0 : 1;
  }
  EXPECT_EQ(taken[0] + taken[1], 8);
  EXPECT_GT(taken[0], 0);
  EXPECT_GT(taken[1], 0);
  EXPECT_FALSE(staging.Await(lk::ServerMessage::kAvailability, absl::Milliseconds(200)));
  v1::CreateDispatchRequest wish = Wish();
  wish.mutable_selector()->set_deployment("staging");
  const std::string dispatch = Create(wish);
  const auto asked = staging.Await(lk::ServerMessage::kAvailability);
  ASSERT_TRUE(asked.has_value());
  EXPECT_EQ(asked->availability().job().deployment(), "staging");
  for (const std::string& id : dispatches) Delete(id);
}

TEST_F(LivekitWorkerTest, WorkerOfAnotherTypeGetsNone) {
  ScriptedWorker worker(Address());
  lk::WorkerMessage message;
  message.mutable_register_()->set_agent_name(agent_);
  message.mutable_register_()->set_type(lk::JT_PUBLISHER);
  worker.Send(message);
  ASSERT_TRUE(worker.Await(lk::ServerMessage::kRegister).has_value());
  const std::string dispatch = Create(Wish());
  EXPECT_FALSE(worker.Await(lk::ServerMessage::kAvailability, absl::Milliseconds(500)));
  EXPECT_EQ(JobOf(dispatch).state(), v1::JOB_STATE_PENDING);
  Delete(dispatch);
}

TEST_F(LivekitWorkerTest, SimulatedJobComesToWhoAskedForIt) {
  ScriptedWorker other(Address()), worker(Address());
  other.Register(agent_);
  worker.Register(agent_);
  lk::WorkerMessage message;
  message.mutable_simulate_job()->mutable_room()->set_name("rehearsal");
  worker.Send(message);
  const auto asked = worker.Await(lk::ServerMessage::kAvailability);
  ASSERT_TRUE(asked.has_value());
  EXPECT_EQ(asked->availability().job().room().name(), "rehearsal");
  worker.Answer(asked->availability().job().id(), false, true);
  EXPECT_FALSE(other.Await(lk::ServerMessage::kAvailability, absl::Milliseconds(200)));
}

TEST_F(LivekitWorkerTest, DrainedByTheOperatorItKeepsItsJobs) {
  ScriptedWorker worker(Address());
  const std::string worker_id = worker.Register(agent_);
  const std::string dispatch = Create(Wish());
  const std::string job = worker.TakeJob();
  ASSERT_TRUE(Becomes(dispatch, v1::JOB_STATE_RUNNING));
  v1::DrainWorkerRequest drain;
  drain.set_worker_id(worker_id);
  Call(&v1::DispatchService::Stub::DrainWorker, drain);
  const std::string later = Create(Wish());
  EXPECT_FALSE(worker.Await(lk::ServerMessage::kAvailability, absl::Milliseconds(500)));
  worker.Say(job, lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(JobOf(later).state(), v1::JOB_STATE_PENDING);
  Delete(later);
}

TEST_F(LivekitWorkerTest, WhatADrainLeavesRunsElsewhere) {
  ScriptedWorker worker(Address());
  const std::string worker_id = worker.Register(agent_);
  const std::string dispatch = Create(Wish());
  const std::string job = worker.TakeJob();
  ASSERT_TRUE(Becomes(dispatch, v1::JOB_STATE_RUNNING));
  ScriptedWorker second(Address());
  second.Register(agent_);
  v1::DrainWorkerRequest drain;
  drain.set_worker_id(worker_id);
  drain.mutable_deadline()->set_seconds(1);
  Call(&v1::DispatchService::Stub::DrainWorker, drain);
  const auto told = worker.Await(lk::ServerMessage::kTermination);
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(second.TakeJob(), job + "-2");
  EXPECT_EQ(JobOf(dispatch).previous_reason(), v1::JOB_REASON_DRAIN_DEADLINE);
  Delete(dispatch);
}

// ---- connections that break ----

TEST_F(LivekitWorkerTest, KeepsItsJobsOverAReconnect) {
  auto worker = std::make_unique<ScriptedWorker>(Address());
  worker->Register(agent_);
  const std::string dispatch = Create(Wish());
  const std::string job = worker->TakeJob();
  ASSERT_TRUE(Becomes(dispatch, v1::JOB_STATE_RUNNING));
  const v1::Job before = JobOf(dispatch);
  worker = std::make_unique<ScriptedWorker>(Address());  // the old one breaks after it
  worker->Register(agent_);
  lk::WorkerMessage message;
  message.mutable_migrate_job()->add_job_ids(job);
  worker->Send(message);
  // Its lease was 12 s long, and is renewed again.
  EXPECT_FALSE(worker->Await(lk::ServerMessage::kTermination, absl::Seconds(Long() ? 14 : 2)));
  const v1::Job after = JobOf(dispatch);
  EXPECT_EQ(after.state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(after.fencing_token(), before.fencing_token());
  EXPECT_EQ(after.attempt(), 1);
  EXPECT_TRUE(!Long() || worker->pings() > 1);
  worker->Say(job, lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_SUCCEEDED));
  // The old id is gone with its last job, the new one stays.
  EXPECT_TRUE(Eventually([&] {
    v1::ListWorkersRequest request;
    request.set_pool(agent_);
    return Call(&v1::DispatchService::Stub::ListWorkers, request).workers_size() == 1;
  }));
}

TEST_F(LivekitWorkerTest, KeepsItsJobsOverTheDeathOfAServer) {
  const std::string log = cluster_->work_dir() + "/second-api-server.log";
  const char* bin = getenv("PARLEY_BIN_DIR");
  auto second = testing::Process::Start(
      {std::string(bin) + "/parley-api-server", "--dev", "--grpc-port", "0", "--http-ports", "0",
       "--admin-port", "0", "--dispatch-address", cluster_->Address("dispatch-broker"),
       "--rooms-address", cluster_->Address("room-server")},
      log);
  ASSERT_TRUE(second.ok()) << second.status();
  const auto line = (*second)->WaitForLine("\"msg\":\"listening\"", absl::Seconds(20));
  ASSERT_TRUE(line.ok()) << line.status();
  const size_t at = line->find("\"http_port\":") + 12;
  const std::string address = "127.0.0.1:" + line->substr(at, line->find_first_of(",}", at) - at);

  auto worker = std::make_unique<ScriptedWorker>(address);
  ASSERT_THAT(worker->Register(agent_), StartsWith("AW_"));
  const std::string dispatch = Create(Wish()), other = Create(Wish());
  const std::string job = worker->TakeJob(), ended = worker->TakeJob();
  ASSERT_TRUE(Becomes(dispatch, v1::JOB_STATE_RUNNING));
  ASSERT_TRUE(Becomes(other, v1::JOB_STATE_RUNNING));
  (*second)->Signal(SIGKILL);
  worker = std::make_unique<ScriptedWorker>(Address());
  worker->Register(agent_);
  lk::WorkerMessage message;
  const bool first_is_job = JobOf(dispatch).id() == job;
  message.mutable_migrate_job()->add_job_ids(job);
  worker->Send(message);
  worker->Say(ended, lk::JS_SUCCESS);  // while it was away
  const std::string& kept = first_is_job ? dispatch : other;
  const std::string& over = first_is_job ? other : dispatch;
  EXPECT_TRUE(Becomes(over, v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(JobOf(over).attempt(), 1);
  EXPECT_EQ(JobOf(kept).state(), v1::JOB_STATE_RUNNING);
  worker->Say(job, lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(kept, v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(JobOf(kept).attempt(), 1);
}

TEST_F(LivekitWorkerTest, NobodyClaimsWhatIsSomebodyElses) {
  ScriptedWorker worker(Address());
  worker.Register(agent_);
  const std::string dispatch = Create(Wish());
  const std::string first = worker.TakeJob();
  worker.Say(first, lk::JS_FAILED);
  const std::string second = worker.TakeJob();
  ASSERT_TRUE(Becomes(dispatch, v1::JOB_STATE_RUNNING));
  ScriptedWorker late(Address());  // still has the first attempt
  late.Register(agent_);
  lk::WorkerMessage message;
  for (const std::string& id : {first, std::string("AJ_nothing"), std::string("AJ_x-1"),
                                std::string("-2"), std::string(100, 'A')}) {
    message.mutable_migrate_job()->add_job_ids(id);
  }
  late.Send(message);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(late.Await(lk::ServerMessage::kTermination).has_value());
  }
  EXPECT_EQ(JobOf(dispatch).state(), v1::JOB_STATE_RUNNING);
  worker.Say(second, lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_SUCCEEDED));
}

TEST_F(LivekitWorkerTest, JobsGoOnWhileTheBrokerIsAway) {
  ScriptedWorker worker(Address());
  worker.Register(agent_);
  const std::string dispatch = Create(Wish());
  const std::string job = worker.TakeJob();
  ASSERT_TRUE(Becomes(dispatch, v1::JOB_STATE_RUNNING));
  PARLEY_ASSERT_OK(cluster_->Restart("dispatch-broker"));
  EXPECT_FALSE(worker.Await(lk::ServerMessage::kTermination, absl::Seconds(2)));
  worker.Say(job, lk::JS_SUCCESS);
  EXPECT_TRUE(Eventually([&] {
    v1::GetDispatchRequest request;
    request.set_dispatch_id(dispatch);
    grpc::ClientContext context;
    auth::Claims claims;
    claims.video.room_create = true;
    rpc::SetBearer(context,
                   auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1)));
    v1::GetDispatchResponse response;
    return stub_->GetDispatch(&context, request, &response).ok() &&
           response.dispatch().jobs(0).state() == v1::JOB_STATE_SUCCEEDED;
  }));
}

// ---- what is refused ----

TEST_F(LivekitWorkerTest, TokensAreAskedForBeforeTheUpgrade) {
  ScriptedWorker none(Address(), "");
  EXPECT_EQ(none.status(), 401);
  auth::Claims person;
  person.identity = "p";
  person.video.room_join = true;
  person.video.room = "r";
  ScriptedWorker wrong(
      Address(), "authorization: Bearer " +
                     auth::Sign(person, auth::KeyRing::Development()->keys()[0], absl::Hours(1)) +
                     "\r\n");
  EXPECT_EQ(wrong.status(), 401);
  EXPECT_THAT(wrong.answer(), HasSubstr("video.agent"));
  ScriptedWorker garbage(Address(), "authorization: Bearer x.y.z\r\n");
  EXPECT_EQ(garbage.status(), 401);
  http::Client client;
  http::Call call;
  call.url = "http://" + Address() + "/agent";
  call.reach = http::Reach::kLoopbackToo;
  const auto reply = client.Fetch(call);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->status, 404);
  EXPECT_EQ(reply->body, "");
}

TEST_F(LivekitWorkerTest, MalformedInputIsClosedWithItsCode) {
  ScriptedWorker bystander(Address());
  bystander.Register(agent_);
  lk::WorkerMessage reg, availability, bad_deployment, bad_type;
  reg.mutable_register_()->set_agent_name("x");
  availability.mutable_availability()->set_job_id("AJ_1");
  bad_deployment.mutable_register_()->set_deployment("a_b");
  bad_type.mutable_register_()->set_type(static_cast<lk::JobType>(9));
  const std::string registered = reg.SerializeAsString();
  struct Case {
    std::string what;
    std::vector<std::pair<int, std::string>> frames;
    int code;
  };
  const std::vector<Case> cases = {
      {"truncated", {{ScriptedWorker::kBinary, registered.substr(0, registered.size() - 1)}}, 1007},
      {"no protobuf", {{ScriptedWorker::kBinary, "\xff\xff\xff\xff"}}, 1007},
      {"no UTF-8", {{ScriptedWorker::kBinary, "\x0a\x04\x42\x02\xc3\x28"}}, 1007},
      {"bad JSON", {{ScriptedWorker::kText, "{\"register\":"}}, 1007},
      {"JSON of another type", {{ScriptedWorker::kText, "[1]"}}, 1007},
      {"deep JSON", {{ScriptedWorker::kText, std::string(100'000, '[')}}, 1007},
      {"wrong order", {{ScriptedWorker::kBinary, availability.SerializeAsString()}}, 1008},
      {"unknown oneof first", {{ScriptedWorker::kBinary, "\x9a\x06\x02hi"}}, 1008},
      {"nothing", {{ScriptedWorker::kBinary, ""}}, 1008},
      {"twice",
       {{ScriptedWorker::kBinary, registered}, {ScriptedWorker::kBinary, registered}},
       1008},
      {"deployment", {{ScriptedWorker::kBinary, bad_deployment.SerializeAsString()}}, 1008},
      {"type", {{ScriptedWorker::kBinary, bad_type.SerializeAsString()}}, 1008},
      {"2 MiB + 1", {{ScriptedWorker::kBinary, std::string((2 << 20) + 1, 'x')}}, 1009},
  };
  for (const Case& one : cases) {
    ScriptedWorker worker(Address());
    ASSERT_EQ(worker.status(), 101) << one.what;
    for (const auto& [opcode, data] : one.frames) worker.SendFrame(opcode, data);
    EXPECT_EQ(worker.AwaitClose(), one.code) << one.what << ": " << worker.close_reason();
  }
  // A message that no version here knows, of a worker that is registered, is passed over.
  bystander.SendFrame(ScriptedWorker::kBinary, "\x9a\x06\x02hi");
  const std::string dispatch = Create(Wish());
  const std::string job = bystander.TakeJob();
  EXPECT_EQ(job, JobOf(dispatch).id());
  bystander.Say(job, lk::JS_SUCCESS);
  EXPECT_TRUE(Becomes(dispatch, v1::JOB_STATE_SUCCEEDED));
}

TEST_F(LivekitWorkerTest, OneMessageMayComeInPieces) {
  ScriptedWorker worker(Address());
  lk::WorkerMessage message;
  message.mutable_register_()->set_agent_name(agent_);
  const std::string bytes = message.SerializeAsString();
  for (size_t i = 0; i < bytes.size(); ++i) {
    worker.SendFrame(i == 0 ? ScriptedWorker::kBinary : ScriptedWorker::kContinuation,
                     bytes.substr(i, 1), i + 1 == bytes.size());
  }
  EXPECT_TRUE(worker.Await(lk::ServerMessage::kRegister).has_value());
}

TEST_F(LivekitWorkerTest, SlowRegistrationAndFloodsDisturbNobody) {
  ScriptedWorker bystander(Address());
  bystander.Register(agent_);
  ScriptedWorker slow(Address());
  lk::WorkerMessage ping;
  ping.mutable_ping()->set_timestamp(1);
  const absl::Time start = absl::Now();
  std::vector<std::unique_ptr<ScriptedWorker>> idle;
  std::vector<absl::Duration> pongs;
  // On an idle machine more than 10,000 a minute: most with nothing to say for themselves, some
  // that stay silent.
  const int rounds = Long() ? 56 : 14;
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(ScriptedWorker(Address(), "authorization: Bearer x\r\n").status(), 401);
    }
    idle.push_back(std::make_unique<ScriptedWorker>(Address()));
    slow.Send(ping);  // alive, but not registered: its time runs all the same
    const absl::Time asked = absl::Now();
    bystander.Send(ping);
    ASSERT_TRUE(bystander.Await(lk::ServerMessage::kPong).has_value());
    pongs.push_back(absl::Now() - asked);
    absl::SleepFor(absl::Milliseconds(100));
  }
  std::sort(pongs.begin(), pongs.end());
  fmt::print("{} refused in {}; a pong after {} in the middle, {} at most\n", rounds * 50,
             absl::FormatDuration(absl::Now() - start),
             absl::FormatDuration(pongs[pongs.size() / 2]), absl::FormatDuration(pongs.back()));
  EXPECT_LT(pongs[pongs.size() / 2], absl::Seconds(1));
  if (!Long()) return;
  EXPECT_EQ(slow.AwaitClose(), 1008);
  EXPECT_THAT(slow.close_reason(), HasSubstr("10 s"));
  EXPECT_EQ(idle.front()->AwaitClose(), 1008);
}

}  // namespace
}  // namespace parley
