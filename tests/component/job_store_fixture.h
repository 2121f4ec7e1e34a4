#pragma once
// A store over a real redis-server, and a worker's side of the conversation.
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/mutex.h"
#include "job_redis/keys.h"
#include "job_redis/redis_job_store.h"
#include "testing/redis_fixture.h"

namespace parley::job {

// One broker: its store, and the messages for workers on its streams.
struct TestBroker {
  explicit TestBroker(redis::Pool& redis, const std::string& id = "B" + RandomBase62(8))
      : store(redis, id,
              {[this](const Message& message) {
                 MutexLock lock(&mutex);
                 messages.push_back(message);
               },
               [this](const std::string& pool) {
                 MutexLock lock(&mutex);
                 recovering.push_back(pool);
               }}) {}

  std::vector<Message> TakeMessages() {
    MutexLock lock(&mutex);
    return std::exchange(messages, {});
  }

  Mutex mutex;
  std::vector<Message> messages;
  std::vector<std::string> recovering;
  RedisJobStore store;
};

class JobStoreTest : public testing::RedisTest {
 protected:
  void SetUp() override {
    RedisTest::SetUp();
    broker_ = std::make_unique<TestBroker>(pool());
  }
  void TearDown() override {
    broker_.reset();
    RedisTest::TearDown();
  }
  RedisJobStore& store() { return broker_->store; }
  TestBroker& broker() { return *broker_; }

  NewDispatch NewEcho(const std::string& room = "room") {
    NewDispatch dispatch;
    dispatch.project = "default";
    dispatch.agent_name = "echo";
    dispatch.room = room;
    dispatch.pool = "echo";
    dispatch.request_hash = "h";
    dispatch.dispatch_id = *store().NewDispatchId("echo");
    dispatch.job_id = *store().NewJobId("echo");
    return dispatch;
  }
  // The id of the new job.
  std::string CreateEcho(const NewDispatch& dispatch) {
    const auto created = store().Create(dispatch);
    EXPECT_TRUE(created.ok()) << created.status();
    return dispatch.job_id;
  }
  std::string CreateEcho() { return CreateEcho(NewEcho()); }

  Registration EchoWorker(const std::string& id, int slots = 1) {
    Registration worker;
    worker.worker_id = id;
    worker.instance = std::string(32, 'a');
    worker.connect_seq = 1;
    worker.project = "default";
    worker.pool = "echo";
    worker.agent_names = {"echo"};
    worker.slots = slots;
    return worker;
  }
  void Connect(const Registration& worker) {
    const auto registered = store().Register(worker);
    EXPECT_TRUE(registered.ok()) << registered.status();
  }
  void Connect(const std::string& id, int slots = 1) { Connect(EchoWorker(id, slots)); }

  Job Get(const std::string& job_id) {
    const auto job = store().GetJob(job_id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.value_or(Job{});
  }
  WordVerdict Say(const Job& job, WordKind kind, Reason reason = Reason::kUnspecified,
                  bool final = false) {
    return SayAs(job.worker_id, job, kind, reason, final);
  }
  WordVerdict SayAs(const std::string& worker, const Job& job, WordKind kind,
                    Reason reason = Reason::kUnspecified, bool final = false) {
    Word word;
    word.job_id = job.id;
    word.fencing_token = job.fencing_token;
    word.kind = kind;
    word.reason = reason;
    word.final = final;
    const auto verdicts = store().Apply("echo", worker, {word});
    EXPECT_TRUE(verdicts.ok()) << verdicts.status();
    return verdicts.ok() ? verdicts->front() : WordVerdict{};
  }
  // Brings a fresh job into RUNNING on whoever is free.
  Job RunEcho() {
    const std::string id = CreateEcho();
    Say(Get(id), WordKind::kAccepted);
    Say(Get(id), WordKind::kStarted);
    EXPECT_EQ(Get(id).state, State::kRunning);
    return Get(id);
  }
  // What is due in the future is due now.
  void MakeDue(const std::string& timer) {
    const auto set = pool().Command({"ZADD", "parley:{echo}:timers", "XX", "CH", "1", timer});
    ASSERT_TRUE(set.ok()) << set.status();
    ASSERT_EQ(set->integer, 1) << "no timer " << timer;
  }
  JobStore::TickResult Tick() {
    const auto result = store().Tick("echo");
    EXPECT_TRUE(result.ok()) << result.status();
    return result.value_or(JobStore::TickResult{});
  }
  bool OnHold() {
    return pool().Command({"HEXISTS", "parley:{echo}:meta", "hold_until"})->integer == 1;
  }
  // All brokers are in; the hold still lasts until every broker that lives had time to be known.
  void EndHold() {
    PARLEY_ASSERT_OK(store().CheckedIn("echo"));
    ASSERT_TRUE(testing::Eventually([this] {
      Tick();
      return !OnHold();
    }));
  }
  void Silence(const std::string& worker, absl::Duration silent) {
    const int64_t then = absl::ToUnixMillis(absl::Now() - silent);
    const auto set =
        pool().Command({"ZADD", "parley:{echo}:leases", "XX", std::to_string(then), worker});
    ASSERT_TRUE(set.ok()) << set.status();
  }
  int SlotsUsed(const std::string& worker) {
    return static_cast<int>(pool().Command({"HLEN", "parley:{echo}:wr:" + worker})->integer);
  }
  std::vector<std::string> EventTypes() {
    std::vector<std::string> types;
    const auto batch = store().ReadEvents("echo", "", 1000);
    EXPECT_TRUE(batch.ok()) << batch.status();
    if (batch.ok()) {
      for (const Event& event : batch->events) types.push_back(event.type);
    }
    return types;
  }

 private:
  std::unique_ptr<TestBroker> broker_;
};

}  // namespace parley::job
