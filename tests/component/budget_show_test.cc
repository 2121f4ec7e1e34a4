// A provider that bans at one stream too many, three gateways, four projects, gateways killed.
// PARLEY_BUDGET_SECONDS: how long (default 8, a gateway killed once; from 120 on: each minute).
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "auth/token.h"
#include "metered_provider.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "rpc/channel.h"
#include "testing/process.h"
#include "testing/redis_fixture.h"

namespace parley {
namespace {

using testing::MeteredProvider;
using testing::Process;

constexpr int kLimit = 20;
constexpr int kClients = 200;
constexpr int kGateways = 3;
constexpr const char* kClusterKey = "0123456789abcdef0123456789abcdef";
struct Project {
  const char* name;
  int weight;
};
constexpr std::array<Project, 4> kProjects = {{{"four", 4}, {"two", 2}, {"one", 1}, {"uno", 1}}};

int Field(const std::string& line, const std::string& name) {
  const size_t at = line.find("\"" + name + "\":");
  return at == std::string::npos ? 0 : std::atoi(line.c_str() + at + name.size() + 3);
}

class Gateway {
 public:
  Gateway(std::string name, const std::string& directory, const std::string& redis,
          const std::string& provider)
      : log_(directory + "/" + name + ".log"),
        argv_({std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-tts-gateway",
               "--grpc-port",
               "0",
               "--admin-port",
               "0",
               "--keys-file",
               directory + "/keys.yaml",
               "--redis-address",
               redis,
               "--tts-openai-base-url",
               provider,
               "--tts-openai-model",
               "voice-1",
               "--tts-openai-voice",
               "anna",
               "--tts-openai-max-streams",
               std::to_string(kLimit),
               "--tts-budget-wait",
               "20s",
               "--log-level",
               "info"}) {
    Start();
  }
  void Start() {
    if (port_ != 0) argv_[2] = std::to_string(port_);  // the same address as before
    auto process =
        Process::Start(argv_, log_ + std::to_string(++starts_), {{"OPENAI_API_KEY", "one-key"}});
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
    const auto line = process_->WaitForLine("\"msg\":\"serving\"", absl::Seconds(30));
    ASSERT_TRUE(line.ok()) << line.status();
    port_ = Field(*line, "grpc_port");
  }
  void Kill() {
    process_->Signal(SIGKILL);
    ASSERT_TRUE(process_->Wait(absl::Seconds(5)).ok());
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  const std::string log_;
  std::vector<std::string> argv_;
  int starts_ = 0;
  int port_ = 0;
  std::unique_ptr<Process> process_;
};

// Says one sentence; false when it was not said.
bool Say(grpc::Channel& channel, const std::string& token, const std::string& text) {
  auto stub = speech::v1::TextToSpeechService::NewStub(
      std::shared_ptr<grpc::Channel>(std::shared_ptr<void>(), &channel));
  grpc::ClientContext call;
  rpc::SetBearer(call, token);
  rpc::SetTimeout(call, absl::Seconds(30));
  auto stream = stub->Synthesize(&call);
  speech::v1::SynthesizeRequest request;
  request.mutable_config()->set_sample_rate_hz(24000);
  request.mutable_config()->add_voices()->set_engine("openai");
  stream->Write(request);
  request.set_text(text);
  stream->Write(request);
  stream->WritesDone();
  speech::v1::SynthesizeResponse response;
  bool done = false;
  while (stream->Read(&response)) done |= response.has_done();
  return stream->Finish().ok() && done;
}

TEST(BudgetShowTest, ThreeGatewaysShareWhatTheProviderAllows) {
  const char* wished = std::getenv("PARLEY_BUDGET_SECONDS");
  const int seconds = wished == nullptr ? 8 : std::atoi(wished);
  const bool full = seconds >= 120;
  const testing::TemporaryDirectory directory;
  auto redis = redis::PrivateServer::Start(directory.path());
  ASSERT_TRUE(redis.ok()) << redis.status();
  {
    std::ofstream keys(directory.path() + "/keys.yaml");
    keys << "cluster_key: " << kClusterKey << "\nkeys:\n";
    for (const Project& project : kProjects)
      keys << "  - {key: API" << project.name
           << ", secret: secret-of-sixteen-bytes, project: " << project.name << "}\n";
    keys << "projects:\n";
    for (const Project& project : kProjects)
      keys << "  - {project: " << project.name << ", weight: " << project.weight << "}\n";
  }
  std::filesystem::permissions(
      directory.path() + "/keys.yaml",
      std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto ring,
                              auth::KeyRing::Load(directory.path() + "/keys.yaml"));
  MeteredProvider provider(kLimit, absl::Milliseconds(700));
  std::vector<std::unique_ptr<Gateway>> gateways;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < kGateways; ++i) {
    gateways.push_back(std::make_unique<Gateway>("gateway" + std::to_string(i), directory.path(),
                                                 (*redis)->address(), provider.url()));
    ASSERT_FALSE(HasFatalFailure());
    channels.push_back(rpc::MakeChannel(gateways.back()->address()));
  }

  std::atomic<bool> stop = false;
  std::atomic<int> said = 0;
  std::atomic<int> missed = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] {
      const Project& project = kProjects[static_cast<size_t>(i) % kProjects.size()];
      auth::Claims claims;
      claims.service = "agent-server";
      claims.project = project.name;
      const std::string token = auth::SignService(claims, *ring, absl::Hours(1));
      for (size_t turn = static_cast<size_t>(i); !stop.load(); ++turn) {
        if (Say(*channels[turn % kGateways], token, std::string(project.name) + ": good day")) {
          ++said;
        } else {
          ++missed;
          absl::SleepFor(absl::Milliseconds(50));  // its gateway is gone: the next one
        }
      }
    });
  }
  // What is measured begins when all slots are taken.
  EXPECT_TRUE(testing::Eventually([&] { return provider.most() == kLimit; }, absl::Seconds(20)));
  absl::SleepFor(absl::Seconds(1));
  provider.Forget();
  const absl::Time start = absl::Now();
  absl::Time next_kill = start + (full ? absl::Minutes(1) : absl::Seconds(seconds / 3.0));
  size_t kills = 0;
  while (absl::Now() < start + absl::Seconds(seconds)) {
    absl::SleepFor(absl::Milliseconds(50));
    if (absl::Now() < next_kill) continue;
    Gateway& victim = *gateways[kills++ % kGateways];
    victim.Kill();
    victim.Start();
    next_kill = full ? next_kill + absl::Minutes(1) : absl::InfiniteFuture();
  }
  const double measured = absl::ToDoubleSeconds(absl::Now() - start);
  const auto use = provider.use();
  stop = true;
  for (std::thread& client : clients) client.join();

  double all = 0;
  double weights = 0;
  for (const auto& [name, one] : use) all += one.seconds;
  for (const Project& project : kProjects) weights += project.weight;
  const double used = all / (measured * kLimit);
  std::cout << "clients " << kClients << ", gateways " << kGateways << ", killed " << kills
            << " times in " << measured << " s: " << said << " sentences, " << missed
            << " cut by kills, most at a time " << provider.most() << ", bans " << provider.bans()
            << ", use " << used * 100 << " %\n";
  EXPECT_EQ(provider.bans(), 0);
  EXPECT_EQ(provider.most(), kLimit);
  EXPECT_GE(kills, 1u);
  // A second and a half of a third of the slots is a larger part of a short run.
  EXPECT_GE(used, full ? 0.95 : 0.80);
  for (const Project& project : kProjects) {
    const double share = use.contains(project.name) ? use.at(project.name).seconds / all : 0;
    const double due = project.weight / weights;
    std::cout << "  " << project.name << ": " << share * 100 << " % of the use, due " << due * 100
              << " %\n";
    EXPECT_NEAR(share, due, full ? 0.05 : 0.08) << project.name;
  }
}

}  // namespace
}  // namespace parley
