// on_request: a program accepts a job under a name of its own, leaves it to another agent server,
// or refuses it for everybody. Real processes.
#include <absl/time/clock.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "auth/token.h"
#include "base/status.h"
#include "parley/room/v1/room.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/status.h"
#include "testing/calls.h"
#include "testing/matchers.h"

namespace parley {
namespace {

namespace roomv1 = parley::room::v1;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(30);

class PickyTest : public ::testing::Test {
 protected:
  void Start(int agent_servers) {
    testing::ClusterOptions options;
    options.agent_binary = "parley-picky-agent";
    options.agent_servers = agent_servers;
    options.services = {"agent-registry", "dispatch-broker", "room-server", "api-server"};
    auto cluster = testing::Cluster::Start(std::move(options));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    api_.emplace(*cluster_);
  }
  absl::StatusOr<json> Place(const std::string& metadata) {
    return api_->Call("POST", "/api/sessions",
                      {{"agent", "picky"}, {"metadata", metadata}, {"restartPolicy", "NEVER"}});
  }
  // The job, once it is in this state.
  json JobIn(const std::string& state, const json& session) {
    const absl::Time end = absl::Now() + kLong;
    json job;
    while (absl::Now() < end) {
      auto now = api_->Job(session["dispatchId"].get<std::string>());
      if (now.ok()) job = *now;
      if (job.is_object() && job["state"] == state) return job;
      absl::SleepFor(absl::Milliseconds(20));
    }
    ADD_FAILURE() << "not " << state << ": " << job.dump();
    return job;
  }
  absl::StatusOr<roomv1::ListParticipantsResponse> Participants(const std::string& room) {
    auth::Claims claims;
    claims.video.room_admin = true;
    claims.video.room = room;
    const auto stub =
        roomv1::RoomService::NewStub(rpc::MakeChannel(cluster_->Address("room-server")));
    grpc::ClientContext call;
    rpc::SetBearer(call,
                   auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Minutes(5)));
    rpc::SetTimeout(call, kLong);
    roomv1::ListParticipantsRequest request;
    request.set_room(room);
    roomv1::ListParticipantsResponse response;
    PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(stub->ListParticipants(&call, request, &response)));
    return response;
  }

  std::unique_ptr<testing::Cluster> cluster_;
  std::optional<testing::Api> api_;
};

TEST_F(PickyTest, AcceptsUnderANameOfItsOwn) {
  ASSERT_NO_FATAL_FAILURE(Start(1));
  PARLEY_ASSERT_OK_AND_ASSIGN(const json session, Place("named"));
  const auto room = session["roomName"].get<std::string>();
  JobIn("RUNNING", session);
  PARLEY_ASSERT_OK(
      cluster_->AgentServer(0).WaitForLine("\"identity\":\"clara-" + room, kLong).status());
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto inside, Participants(room));
  ASSERT_EQ(inside.participants_size(), 1);
  const roomv1::Participant& clara = inside.participants(0);
  EXPECT_EQ(clara.identity(), "clara-" + room);
  EXPECT_EQ(clara.name(), "Clara");
  EXPECT_EQ(clara.metadata(), "speaks Dutch");
  EXPECT_EQ(clara.attributes().at("floor"), "ground");
  EXPECT_EQ(clara.kind(), roomv1::PARTICIPANT_KIND_AGENT);
}

TEST_F(PickyTest, LeavesAJobToAnother) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  const std::string file = cluster_->work_dir() + "/asked";
  PARLEY_ASSERT_OK_AND_ASSIGN(const json session, Place(file));
  JobIn("RUNNING", session);
  EXPECT_TRUE(std::filesystem::exists(file)) << "somebody was asked before";
  int rejected = 0;
  int running = 0;
  for (size_t i = 0; i < 2; ++i) {
    const std::string log = cluster_->AgentServer(i).Log();
    const bool refused = log.find("ask the other one") != std::string::npos;
    const bool runs = log.find("\"msg\":\"job running\"") != std::string::npos;
    EXPECT_NE(refused, runs) << log;
    rejected += refused ? 1 : 0;
    running += runs ? 1 : 0;
  }
  EXPECT_EQ(rejected, 1);
  EXPECT_EQ(running, 1);
}

TEST_F(PickyTest, RefusesForEverybody) {
  ASSERT_NO_FATAL_FAILURE(Start(2));
  PARLEY_ASSERT_OK_AND_ASSIGN(const json session, Place("never"));
  const json job = JobIn("FAILED", session);
  EXPECT_EQ(job["reason"], "REJECTED");
  EXPECT_THAT(job["error"].get<std::string>(), HasSubstr("the desk is closed"));
  int asked = 0;
  for (size_t i = 0; i < 2; ++i) {
    asked += cluster_->AgentServer(i).Log().find("the desk is closed") != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(asked, 1) << "nobody else is asked";
}

TEST_F(PickyTest, SurvivesAProgramThatThrows) {
  ASSERT_NO_FATAL_FAILURE(Start(1));
  PARLEY_ASSERT_OK(Place("throw").status());
  PARLEY_EXPECT_OK(
      cluster_->AgentServer(0).WaitForLine("on_request threw: no such guest", kLong).status());
  PARLEY_ASSERT_OK_AND_ASSIGN(const json session, Place("named"));
  JobIn("RUNNING", session);
}

}  // namespace
}  // namespace parley
