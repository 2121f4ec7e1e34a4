// What dispatching promises, over three brokers' stores on one Redis, with threads.
#include <atomic>
#include <set>
#include <thread>

#include "job_store_fixture.h"

namespace parley::job {
namespace {

using ::testing::SizeIs;

class PromisesTest : public JobStoreTest {
 protected:
  Registration TakesAll(const std::string& id, int slots) {
    Registration worker = EchoWorker(id, slots);
    worker.accepts_all = true;
    return worker;
  }
};

TEST_F(PromisesTest, WaitingJobsRunInOrderWhenAWorkerStarts) {
  std::vector<std::string> waiting, ran;
  for (int i = 0; i < 100; ++i) waiting.push_back(CreateEcho());
  Connect(TakesAll("AW_1", 1));
  for (auto messages = broker().TakeMessages(); !messages.empty();
       messages = broker().TakeMessages()) {
    for (const Message& message : messages) {
      ASSERT_EQ(message.kind, Message::Kind::kGo);
      ran.push_back(message.job_id);
      Say(Get(message.job_id), WordKind::kStarted);
      Say(Get(message.job_id), WordKind::kEnded, Reason::kShutdown);
    }
  }
  EXPECT_EQ(ran, waiting);
}

TEST_F(PromisesTest, OneKeyOneDispatchAmongFiftyAtOnce) {
  TestBroker others[] = {TestBroker(pool()), TestBroker(pool())};
  RedisJobStore* stores[] = {&store(), &others[0].store, &others[1].store};
  Mutex mutex;
  std::set<std::string> ids;
  std::atomic<int> created{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 50; ++i) {
    NewDispatch dispatch = NewEcho();
    dispatch.idempotency_key = "once";
    threads.emplace_back([&, dispatch, mine = stores[i % 3]] {
      const auto answer = mine->Create(dispatch);
      ASSERT_TRUE(answer.ok()) << answer.status();
      if (!answer->existed) ++created;
      MutexLock lock(&mutex);
      ids.insert(answer->dispatch.id);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(created, 1);
  EXPECT_THAT(ids, SizeIs(1));
  EXPECT_EQ(Tick().pending, 1);
}

// The worker is on the first broker; creates of the two others reach it through its inbox.
TEST_F(PromisesTest, SlotsNeverExceededByThreeBrokersAtOnce) {
  constexpr size_t kJobs = 1000;
  TestBroker others[] = {TestBroker(pool()), TestBroker(pool())};
  RedisJobStore* stores[] = {&store(), &others[0].store, &others[1].store};
  Connect(TakesAll("AW_1", 1));
  std::vector<NewDispatch> dispatches;
  for (size_t i = 0; i < kJobs; ++i) dispatches.push_back(NewEcho());
  std::vector<std::thread> threads;
  for (size_t broker = 0; broker < 3; ++broker) {
    threads.emplace_back([&, broker] {
      for (size_t i = broker; i < kJobs; i += 3) {
        EXPECT_TRUE(stores[broker]->Create(dispatches[i]).ok());
      }
    });
  }
  // Told of a job while it has one: two at a time.
  std::set<std::string> ran;
  std::string running;
  const absl::Time until = absl::Now() + absl::Seconds(60);
  while (ran.size() < kJobs && absl::Now() < until) {
    auto messages = broker().TakeMessages();
    if (messages.empty()) {
      (void)store().WaitInbox({"echo"}, false, absl::Milliseconds(5));
      messages = broker().TakeMessages();
    }
    ASSERT_LE(SlotsUsed("AW_1"), 1);
    for (const Message& message : messages) {
      ASSERT_EQ(message.kind, Message::Kind::kGo);
      ASSERT_EQ(running, "") << "two at a time";
      ASSERT_TRUE(ran.insert(message.job_id).second) << "twice";
      running = message.job_id;
      Say(Get(running), WordKind::kStarted);
    }
    if (running.empty()) continue;
    // Its end brings the next one: not before it.
    const Job ending = Get(running);
    running = "";
    Say(ending, WordKind::kEnded, Reason::kShutdown);
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(ran, SizeIs(kJobs));
  EXPECT_EQ(Tick().pending, 0);
}

TEST_F(PromisesTest, ThousandJobsEndedInEightWaysHaveTheRightReasonAndOneEventEach) {
  constexpr int kEach = 125;
  struct Expected {
    State state;
    Reason reason;
  };
  std::map<std::string, Expected> expected;
  const auto create = [&](State state, Reason reason) {
    NewDispatch dispatch = NewEcho();
    dispatch.restart_policy = RestartPolicy::kNever;
    expected[dispatch.job_id] = {state, reason};
    return CreateEcho(dispatch);
  };
  // Nobody is there yet: deadlines, and cancelled while queued.
  for (int i = 0; i < kEach; ++i) {
    MakeDue("deadline:" + create(State::kFailed, Reason::kNoWorkerBeforeDeadline));
    PARLEY_ASSERT_OK(store().Terminate(create(State::kCancelled, Reason::kTerminated)));
  }
  while (Tick().pending > 0) {
  }
  Connect(EchoWorker("AW_1", 2000));
  const auto run = [&](const std::string& id) {
    Say(Get(id), WordKind::kAccepted);
    Say(Get(id), WordKind::kStarted);
    return Get(id);
  };
  const std::pair<State, Reason> ends[] = {{State::kSucceeded, Reason::kShutdown},
                                           {State::kSucceeded, Reason::kParticipantsLeft},
                                           {State::kFailed, Reason::kProcessCrashed},
                                           {State::kFailed, Reason::kOutOfMemory}};
  for (const auto& [state, reason] : ends) {
    for (int i = 0; i < kEach; ++i) {
      Say(run(create(state, reason)), WordKind::kEnded, reason);
    }
  }
  for (int i = 0; i < kEach; ++i) {
    Say(Get(create(State::kFailed, Reason::kRejected)), WordKind::kRejected, Reason::kUnspecified,
        true);
  }
  for (int i = 0; i < kEach; ++i) run(create(State::kFailed, Reason::kWorkerLost));
  PARLEY_ASSERT_OK(store().EndSession("echo", "AW_1", std::string(32, 'a'), 1));

  ASSERT_THAT(expected, SizeIs(8 * kEach));
  std::map<std::string, int> terminal_events, dispatch_ends;
  std::map<std::string, Expected> told;
  std::string position;
  while (true) {
    PARLEY_ASSERT_OK_AND_ASSIGN(const auto batch, store().ReadEvents("echo", position, 1000));
    if (batch.events.empty()) break;
    position = batch.next;
    for (const Event& event : batch.events) {
      if (event.type == "dispatch_ended") ++dispatch_ends[event.job_id];
      const bool ends_job = event.type == "job_succeeded" || event.type == "job_failed" ||
                            event.type == "job_cancelled";
      if (!ends_job) continue;
      ++terminal_events[event.job_id];
      told[event.job_id] = {event.state, event.reason};
    }
  }
  for (const auto& [id, want] : expected) {
    const Job job = Get(id);
    ASSERT_EQ(job.state, want.state) << id << " " << Text(want.reason);
    ASSERT_EQ(job.reason, want.reason) << id;
    ASSERT_EQ(terminal_events[id], 1) << id;
    ASSERT_EQ(dispatch_ends[id], 1) << id;
    ASSERT_EQ(told[id].state, want.state) << id;
    ASSERT_EQ(told[id].reason, want.reason) << id;
  }
}

}  // namespace
}  // namespace parley::job
