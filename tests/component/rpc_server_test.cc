// What every gRPC server of ours has: reflection, and threads that leave each other alone.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>
#include <parley/speech/v1/speech.grpc.pb.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/executor.h"
#include "base/mutex.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"
#include "rpc/reflection.grpc.pb.h"
#include "rpc/server.h"
#include "testing/matchers.h"

namespace parley::rpc {
namespace {

namespace reflection = ::grpc::reflection::v1alpha;
namespace speech = ::parley::speech::v1;
using ::testing::Contains;
using ::testing::Not;
using ::testing::StartsWith;

// Says each message's audio back as a partial transcript.
class Echo final : public speech::SpeechToTextService::CallbackService {
 public:
  explicit Echo(Executor& executor) : executor_(executor) {}
  grpc::ServerBidiReactor<speech::RecognizeRequest, speech::RecognizeResponse>* Recognize(
      grpc::CallbackServerContext*) override {
    return Session::Start<Session>(executor_);
  }

 private:
  class Session final : public BidiSession<speech::RecognizeRequest, speech::RecognizeResponse> {
   public:
    explicit Session(Executor& executor) : BidiSession(executor, 64) {}

   private:
    bool IsQuick(const speech::RecognizeRequest&) const override { return true; }
    void OnMessage(const speech::RecognizeRequest& message) override {
      speech::RecognizeResponse response;
      response.mutable_partial()->set_text(message.audio());
      Send(std::move(response));
    }
    void OnClosed() override {}
  };
  Executor& executor_;
};

class RpcServerTest : public ::testing::Test {
 protected:
  RpcServerTest() {
    const absl::Status started = server_.Start({}, {&echo_});
    EXPECT_TRUE(started.ok()) << started;
    channel_ = MakeChannel("127.0.0.1:" + std::to_string(server_.port()));
  }

  // One stream, a request each; what came back.
  std::vector<reflection::ServerReflectionResponse> Ask(
      const std::vector<reflection::ServerReflectionRequest>& requests) {
    const auto stub = reflection::ServerReflection::NewStub(channel_);
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(10));
    const auto stream = stub->ServerReflectionInfo(&context);
    std::vector<reflection::ServerReflectionResponse> responses;
    for (const auto& request : requests) {
      stream->Write(request);
      if (!stream->Read(&responses.emplace_back())) break;
    }
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    return responses;
  }

  Executor executor_{2, 1024};
  Echo echo_{executor_};
  Server server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(RpcServerTest, ToolsLearnWhatItServes) {
  std::vector<reflection::ServerReflectionRequest> requests(5);
  requests[0].set_list_services("");
  requests[1].set_file_containing_symbol("parley.speech.v1.SpeechToTextService.Recognize");
  requests[2].set_file_by_filename("rpc/details.proto");
  requests[3].set_file_containing_symbol("parley.speech.v1.Nothing");
  const auto responses = Ask(requests);
  ASSERT_EQ(responses.size(), requests.size());

  std::vector<std::string> names;
  for (const auto& one : responses[0].list_services_response().service()) {
    names.push_back(one.name());
  }
  EXPECT_THAT(names, Contains("parley.speech.v1.SpeechToTextService"));
  EXPECT_THAT(names, Contains("grpc.health.v1.Health"));
  EXPECT_THAT(names, Contains("grpc.reflection.v1alpha.ServerReflection"));

  const auto files = [](const reflection::ServerReflectionResponse& response) {
    std::vector<std::string> found;
    for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
      google::protobuf::FileDescriptorProto file;
      EXPECT_TRUE(file.ParseFromString(bytes));
      found.push_back(file.name());
    }
    return found;
  };
  EXPECT_EQ(files(responses[1]).at(0), "parley/speech/v1/speech.proto");
  EXPECT_THAT(files(responses[1]), Contains("parley/common/v1/common.proto"));
  EXPECT_THAT(files(responses[2]),
              ::testing::ElementsAre("rpc/details.proto", "google/protobuf/any.proto"));
  EXPECT_EQ(responses[3].error_response().error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(responses[3].original_request().file_containing_symbol(), "parley.speech.v1.Nothing");
  EXPECT_EQ(responses[4].error_response().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RpcServerTest, HasNoThreadsOfItsOwn) {
  Ask(std::vector<reflection::ServerReflectionRequest>(1));
  std::vector<std::string> names;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::getline(std::ifstream(task.path() / "comm"), names.emplace_back());
  }
  EXPECT_THAT(names, Contains(StartsWith("nexting_thread")));
  EXPECT_THAT(names, Not(Contains(StartsWith("grpcpp_sync"))));
}

// A ping-pong through the callback threads of this process, which serves both ends.
TEST_F(RpcServerTest, ManyMessagesStayOnOneThreadAndFewWaitForNone) {
  using Stream = ClientBidi<speech::RecognizeRequest, speech::RecognizeResponse>;
  constexpr int kMany = 2'000;
  constexpr int kSettled = 600;  // by then the other threads are kept waiting
  Mutex mutex;
  CondVar changed;
  int echoed = 0;
  bool in_order = true;
  std::map<std::thread::id, int> by_thread;
  const auto stub = speech::SpeechToTextService::NewStub(channel_);
  Stream::Options options;
  options.on_message = [&](speech::RecognizeResponse& response) {
    MutexLock lock(&mutex);
    in_order = in_order && response.partial().text() == std::to_string(echoed);
    if (++echoed > kSettled) ++by_thread[std::this_thread::get_id()];
    changed.SignalAll();
  };
  bool done = false;
  options.on_done = [&](const absl::Status&) {
    MutexLock lock(&mutex);
    done = true;
    changed.SignalAll();
  };
  const auto stream = Stream::Open(
      [&](auto* context, auto* reactor) { stub->async()->Recognize(context, reactor); }, options);
  const auto say_and_wait = [&](int number) {
    speech::RecognizeRequest request;
    request.set_audio(std::to_string(number));
    stream->Send(std::move(request));
    MutexLock lock(&mutex);
    const absl::Time until = absl::Now() + absl::Seconds(10);
    while (echoed <= number && absl::Now() < until) changed.WaitFor(&mutex, until - absl::Now());
    return echoed > number;
  };
  for (int i = 0; i < kMany; ++i) {
    EXPECT_TRUE(say_and_wait(i));
    std::this_thread::sleep_for(std::chrono::microseconds(300));  // not all that one thread can do
  }
  int most = 0;
  {
    MutexLock lock(&mutex);
    for (const auto& [id, count] : by_thread) most = std::max(most, count);
  }
  // Two threads share them evenly otherwise; a machine that stands still lets the other one go on.
  EXPECT_GE(most, (kMany - kSettled) * 8 / 10);

  // What comes after a pause, when one thread naps, is taken all the same.
  std::this_thread::sleep_for(std::chrono::milliseconds(1'300));
  for (int i = kMany; i < kMany + 5; ++i) EXPECT_TRUE(say_and_wait(i));
  stream->Cancel();
  MutexLock lock(&mutex);
  while (!done) changed.Wait(&mutex);
  EXPECT_TRUE(in_order);
}

}  // namespace
}  // namespace parley::rpc
