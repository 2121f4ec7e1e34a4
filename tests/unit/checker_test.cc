// The checker against histories that break each promise in turn: every one must be caught, and a
// good history must pass. Times are milliseconds from an arbitrary beginning.
#include <absl/time/time.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "checker/checks.h"

namespace parley::checker {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::IsEmpty;
using ::testing::Not;

// Broken, and nothing else is.
auto Only(const std::string& invariant) {
  return ::testing::AllOf(Not(IsEmpty()), Each(invariant));
}

constexpr int64_t kBegin = 1'700'000'000'000;

// Lines as the programs write them; all methods take the time first.
class Logs {
 public:
  Logs& Ask(int64_t ms, const std::string& key, int wait_ms = 60'000) {
    return Add(Source::kClients,
               fmt::format(R"({{"time_us":{},"what":"ask","key":"{}","wait_ms":{}}})", Us(ms), key,
                           wait_ms));
  }
  Logs& Ack(int64_t ms, const std::string& key, const std::string& dispatch) {
    return Add(Source::kClients,
               fmt::format(R"({{"time_us":{},"what":"ack","key":"{}","dispatch":"{}"}})", Us(ms),
                           key, dispatch));
  }
  Logs& GiveUp(int64_t ms, const std::string& key) {
    return Add(Source::kClients,
               fmt::format(R"({{"time_us":{},"what":"give_up","key":"{}"}})", Us(ms), key));
  }
  Logs& Terminate(int64_t ms, const std::string& dispatch) {
    return Add(
        Source::kClients,
        fmt::format(R"({{"time_us":{},"what":"terminate","dispatch":"{}"}})", Us(ms), dispatch));
  }
  Logs& Final(const std::string& dispatch, const std::string& state, const std::string& reason) {
    return Add(
        Source::kClients,
        fmt::format(R"({{"time_us":{},"what":"final","dispatch":"{}","state":"{}","reason":"{}"}})",
                    Us(90'000), dispatch, state, reason));
  }
  Logs& Event(int64_t ms, const std::string& type, const std::string& state, uint64_t token = 0,
              const std::string& worker = "", const std::string& reason = "",
              const std::string& job = "AJ_1", const std::string& dispatch = "AD_1") {
    return Add(Source::kEvents,
               fmt::format(R"({{"position":"1-{}","pool":"p","time":"{}","type":"{}",)"
                           R"("project":"default","dispatchId":"{}","jobId":"{}","workerId":"{}",)"
                           R"("state":"{}","reason":"{}","fencingToken":"{}","attempt":1}})",
                           ++position_,
                           absl::FormatTime(absl::RFC3339_full, absl::FromUnixMillis(kBegin + ms),
                                            absl::UTCTimeZone()),
                           type, dispatch, job, worker, state, reason, token));
  }
  Logs& Created(int64_t ms, const std::string& job = "AJ_1", const std::string& dispatch = "AD_1") {
    Event(ms, "dispatch_created", "", 0, "", "", job, dispatch);
    return Event(ms, "job_pending", "PENDING", 0, "", "", job, dispatch);
  }
  Logs& Leased(int64_t ms, uint64_t token, const std::string& worker,
               const std::string& job = "AJ_1", const std::string& dispatch = "AD_1") {
    return Event(ms, "job_assigned", "ASSIGNED", token, worker, "", job, dispatch);
  }
  Logs& Ended(int64_t ms, const std::string& state, const std::string& reason, uint64_t token = 0,
              const std::string& worker = "", const std::string& job = "AJ_1",
              const std::string& dispatch = "AD_1") {
    Event(ms, "job_ended", state, token, worker, reason, job, dispatch);
    return Event(ms, "dispatch_ended", state, 0, "", reason, job, dispatch);
  }
  Logs& SessionEnded(int64_t ms, const std::string& worker) {
    return Event(ms, "worker_ended", "", 0, worker, "", "", "");
  }
  Logs& Begin(int64_t ms, const std::string& worker, int slots, int pid) {
    return Add(Source::kWorkers,
               fmt::format(R"({{"time_us":{},"what":"begin","worker":"{}","slots":{},"pid":{}}})",
                           Us(ms), worker, slots, pid));
  }
  Logs& Worker(int64_t ms, const std::string& what, const std::string& worker, uint64_t token,
               const std::string& reason = "", const std::string& job = "AJ_1") {
    return Add(Source::kWorkers,
               fmt::format(R"({{"time_us":{},"what":"{}","worker":"{}","job":"{}","token":{},)"
                           R"("reason":"{}"}})",
                           Us(ms), what, worker, job, token, reason));
  }
  Logs& Renewed(int64_t ms, const std::string& worker) {
    return Add(Source::kWorkers,
               fmt::format(R"({{"time_us":{},"what":"renew","worker":"{}"}})", Us(ms), worker));
  }
  Logs& Door(int64_t ms, const std::string& what, uint64_t token, uint64_t highest,
             const std::string& worker, const std::string& server = "r1") {
    return Add(Source::kRooms,
               fmt::format(R"({{"time_us":{},"what":"{}","room_sid":"RM_1","job":"AJ_1",)"
                           R"("worker":"{}","token":{},"highest":{}}})",
                           Us(ms), what, worker, token, highest),
               server);
  }
  Logs& RoomServer(int64_t ms, const std::string& what, const std::string& server = "r1") {
    return Add(Source::kRooms,
               fmt::format(R"({{"time_us":{},"what":"{}","server":"{}"}})", Us(ms), what, server),
               server);
  }
  // Nothing of what went before at this position counts: for duplicates.
  Logs& Rewind(int positions) {
    position_ -= positions;
    return *this;
  }

  Verdict Judge(const Options& options = {}) const { return Check(history_, options); }
  std::vector<std::string> Broken(const Options& options = {}) const {
    std::vector<std::string> names;
    for (const Violation& violation : Judge(options).violations) {
      names.push_back(violation.invariant);
    }
    return names;
  }

 private:
  static int64_t Us(int64_t ms) { return (kBegin + ms) * 1000; }
  Logs& Add(Source source, const std::string& line, const std::string& file = "log") {
    const absl::Status status = AddLine(source, file, ++line_, line, history_);
    EXPECT_TRUE(status.ok()) << status << "\n" << line;
    return *this;
  }
  History history_;
  int line_ = 0;
  int position_ = 0;
};

// One dispatch, one attempt that ends well.
Logs Good() {
  Logs run;
  run.Begin(0, "AW_1", 2, 10).Begin(0, "AW_2", 2, 20).RoomServer(0, "begin");
  run.Ask(1, "k1").Created(10).Ack(12, "k1", "AD_1");
  run.Leased(10, 100, "AW_1").Worker(11, "start", "AW_1", 100).Worker(13, "enter", "AW_1", 100);
  run.Event(14, "job_running", "RUNNING", 100, "AW_1");
  run.Door(20, "admit", 100, 100, "AW_1").Door(900, "remove", 100, 100, "AW_1");
  run.Worker(1000, "end", "AW_1", 100, "SHUTDOWN");
  run.Ended(1001, "SUCCEEDED", "SHUTDOWN", 100, "AW_1").Final("AD_1", "SUCCEEDED", "SHUTDOWN");
  return run;
}

// As far as its first attempt runs and is admitted.
Logs Running() {
  Logs run;
  run.Begin(0, "AW_1", 2, 10).Begin(0, "AW_2", 2, 20).RoomServer(0, "begin");
  run.Ask(1, "k1").Created(10).Ack(12, "k1", "AD_1");
  run.Leased(10, 100, "AW_1").Worker(11, "start", "AW_1", 100).Worker(13, "enter", "AW_1", 100);
  run.Event(14, "job_running", "RUNNING", 100, "AW_1").Door(20, "admit", 100, 100, "AW_1");
  return run;
}

// Its first attempt lost with its worker, its second one well.
Logs SecondAttempt() {
  Logs run = Running();
  run.SessionEnded(500, "AW_1");
  run.Event(500, "job_pending", "PENDING", 100, "AW_1", "WORKER_LOST");
  run.Leased(500, 200, "AW_2").Worker(501, "start", "AW_2", 200);
  run.Event(502, "job_running", "RUNNING", 200, "AW_2");
  return run;
}

TEST(CheckerTest, GoodHistoriesPass) {
  const Verdict verdict = Good().Judge();
  EXPECT_THAT(verdict.violations, IsEmpty());
  EXPECT_EQ(verdict.acked, 1);
  EXPECT_EQ(verdict.leases, 1);
  EXPECT_EQ(verdict.started, 1);
  EXPECT_EQ(verdict.admitted, 1);
  EXPECT_EQ(verdict.ends.at("SUCCEEDED/SHUTDOWN"), 1);

  Logs second = SecondAttempt();
  second.Door(510, "remove", 100, 200, "AW_1").Door(511, "admit", 200, 200, "AW_2");
  second.Door(600, "refuse", 100, 200, "AW_1");  // the old copy comes back: too late
  second.Worker(900, "end", "AW_2", 200, "PARTICIPANTS_LEFT");
  second.Ended(901, "SUCCEEDED", "PARTICIPANTS_LEFT", 200, "AW_2");
  const Verdict restarted = second.Judge();
  for (const Violation& violation : restarted.violations) ADD_FAILURE() << violation.text;
  EXPECT_EQ(restarted.restarts, 1);
  EXPECT_EQ(restarted.refused, 1);
}

// A job is handed over, once in vain and once for good, each time with a second process.
Logs HandedOver() {
  Logs logs;
  logs.Ask(0, "k1")
      .Created(0)
      .Ack(1, "k1", "AD_1")
      .Leased(1, 10, "AW_1")
      .Worker(2, "start", "AW_1", 10);
  logs.Event(3, "job_running", "RUNNING", 10, "AW_1");
  logs.Event(100, "job_migrating", "RUNNING", 20, "AW_2").Worker(101, "start", "AW_2", 20);
  logs.Event(5100, "job_kept", "RUNNING", 10, "AW_1").Worker(5101, "release", "AW_2", 20);
  logs.Event(6000, "job_migrating", "RUNNING", 30, "AW_3").Worker(6001, "start", "AW_3", 30);
  logs.Event(6100, "job_running", "RUNNING", 30, "AW_3").Worker(6101, "release", "AW_1", 10);
  logs.Worker(7000, "end", "AW_3", 30, "PARTICIPANTS_LEFT");
  logs.Ended(7001, "SUCCEEDED", "PARTICIPANTS_LEFT", 30, "AW_3");
  return logs;
}

TEST(CheckerTest, HandOverIsNoRestart) { EXPECT_THAT(HandedOver().Broken(), IsEmpty()); }

TEST(CheckerTest, SuccessorMayNotStartUnasked) {
  Logs logs;
  logs.Ask(0, "k1")
      .Created(0)
      .Ack(1, "k1", "AD_1")
      .Leased(1, 10, "AW_1")
      .Worker(2, "start", "AW_1", 10);
  logs.Event(3, "job_running", "RUNNING", 10, "AW_1").Worker(101, "start", "AW_2", 20);
  logs.Worker(102, "release", "AW_2", 20).Worker(7000, "end", "AW_1", 10, "PARTICIPANTS_LEFT");
  logs.Ended(7001, "SUCCEEDED", "PARTICIPANTS_LEFT", 10, "AW_1");
  EXPECT_THAT(logs.Broken(), Only("StaleWriteRefused"));
}

TEST(CheckerTest, AckedDispatchKept) {
  EXPECT_THAT(Logs().Ask(1, "k").Ack(2, "k", "AD_9").Broken(), Contains("AckedDispatchKept"));
  EXPECT_EQ(Logs().Ask(1, "k").Ack(2, "k", "AD_9").Judge().lost, 1);
  EXPECT_THAT(Running().Broken(), Contains("AckedDispatchKept"));
  EXPECT_THAT(Good().Final("AD_1", "FAILED", "HUNG").Broken(), Only("AckedDispatchKept"));
}

TEST(CheckerTest, OneKeyOneDispatch) {
  Logs twice = Good();
  twice.Ack(13, "k1", "AD_2").Created(13, "AJ_2", "AD_2");
  EXPECT_THAT(twice.Broken(), Contains("OneKeyOneDispatch"));
  EXPECT_GE(twice.Judge().doubled, 1);
  // Made by a retry that had another answer, or by a create that nobody was told of.
  Logs untold = Good();
  untold.Created(13, "AJ_2", "AD_2").Terminate(14, "AD_2");
  untold.Ended(15, "CANCELLED", "TERMINATED", 0, "", "AJ_2", "AD_2");
  EXPECT_THAT(untold.Broken(), Only("OneKeyOneDispatch"));
  untold.Ask(12, "k2").GiveUp(16, "k2");
  EXPECT_THAT(untold.Broken(), IsEmpty());
}

TEST(CheckerTest, EveryEventOnce) {
  EXPECT_THAT(Good().Rewind(1).SessionEnded(1100, "AW_2").Broken(), Contains("EveryEventOnce"));
  Logs twice = Good();
  twice.Event(1002, "dispatch_ended", "SUCCEEDED", 0, "", "SHUTDOWN");
  EXPECT_THAT(twice.Broken(), Only("EveryEventOnce"));
  Logs silent = Running();
  silent.Worker(30, "end", "AW_1", 100, "SHUTDOWN");
  silent.Event(31, "job_succeeded", "SUCCEEDED", 100, "AW_1", "SHUTDOWN");
  EXPECT_THAT(silent.Broken(), Only("EveryEventOnce"));
}

TEST(CheckerTest, LegalStateChange) {
  Logs again = Running();
  again.Event(30, "job_running", "RUNNING", 100, "AW_1");
  EXPECT_THAT(again.Broken(), Contains("LegalStateChange"));
  Logs back = Running();
  back.Event(30, "job_offered", "OFFERED", 100, "AW_1");
  EXPECT_THAT(back.Broken(), Contains("LegalStateChange"));
  Logs reason = Running();
  reason.Worker(30, "end", "AW_1", 100, "HUNG").Ended(31, "SUCCEEDED", "HUNG", 100, "AW_1");
  EXPECT_THAT(reason.Broken(), Contains("LegalStateChange"));
}

TEST(CheckerTest, TerminalIsFinal) {
  EXPECT_THAT(Good().Leased(1100, 300, "AW_2").Broken(), Contains("TerminalIsFinal"));
  Logs cancelled;
  cancelled.Begin(0, "AW_1", 1, 1).Ask(1, "k1").Created(10).Ack(11, "k1", "AD_1");
  cancelled.Terminate(12, "AD_1").Ended(13, "CANCELLED", "TERMINATED");
  EXPECT_THAT(cancelled.Broken(), IsEmpty());
  EXPECT_THAT(cancelled.Leased(14, 100, "AW_1").Broken(), Contains("TerminalIsFinal"));
}

TEST(CheckerTest, EveryJobEnds) {
  EXPECT_THAT(Running().Broken(), Contains("EveryJobEnds"));
  // Its process was never seen to end, and its worker lives.
  Logs left = Running();
  left.Terminate(29, "AD_1").Ended(30, "CANCELLED", "TERMINATED", 100, "AW_1");
  EXPECT_THAT(left.Broken(), Only("EveryJobEnds"));
  left.Worker(31, "release", "AW_1", 100);
  EXPECT_THAT(left.Broken(), IsEmpty());
}

TEST(CheckerTest, TokenNeverRepeats) {
  Logs shared = Good();
  shared.Ask(1, "k2").Created(1100, "AJ_2", "AD_2").Ack(1101, "k2", "AD_2");
  shared.Leased(1100, 100, "AW_2", "AJ_2", "AD_2");
  EXPECT_THAT(shared.Broken(), Contains("TokenNeverRepeats"));
  EXPECT_THAT(Running().Worker(30, "start", "AW_1", 100).Broken(), Contains("TokenNeverRepeats"));
}

TEST(CheckerTest, StaleWriteRefused) {
  Logs older = SecondAttempt();  // the end of the first attempt is taken for the second's
  older.Worker(600, "end", "AW_1", 100, "SHUTDOWN");
  older.Ended(601, "SUCCEEDED", "SHUTDOWN", 100, "AW_1");
  EXPECT_THAT(older.Broken(), Contains("StaleWriteRefused"));
  Logs other = Running();  // somebody else speaks for the lease
  other.SessionEnded(400, "AW_1");
  other.Event(400, "job_pending", "PENDING", 100, "AW_1", "WORKER_LOST");
  other.Event(410, "job_running", "RUNNING", 100, "AW_2");
  EXPECT_THAT(other.Broken(), Contains("StaleWriteRefused"));
  EXPECT_THAT(Good().Worker(1100, "start", "AW_2", 300).Broken(), Contains("StaleWriteRefused"));
  EXPECT_THAT(Good().Door(1100, "admit", 300, 300, "AW_2").Broken(), Contains("StaleWriteRefused"));
}

TEST(CheckerTest, ReasonIsTrue) {
  Logs made_up = Running();
  made_up.Worker(30, "end", "AW_1", 100, "HUNG").Ended(31, "SUCCEEDED", "SHUTDOWN", 100, "AW_1");
  EXPECT_THAT(made_up.Broken(), Only("ReasonIsTrue"));
  Logs unseen = Running();
  unseen.Ended(31, "FAILED", "OUT_OF_MEMORY", 100, "AW_1").Worker(40, "release", "AW_1", 100);
  EXPECT_THAT(unseen.Broken(), Only("ReasonIsTrue"));
  Logs unasked = Running();
  unasked.Ended(31, "CANCELLED", "TERMINATED", 100, "AW_1").Worker(40, "release", "AW_1", 100);
  EXPECT_THAT(unasked.Broken(), Only("ReasonIsTrue"));
  Logs early;
  early.Ask(1, "k1", 5000).Created(10).Ack(11, "k1", "AD_1");
  early.Ended(4000, "FAILED", "NO_WORKER_BEFORE_DEADLINE");
  EXPECT_THAT(early.Broken(), Only("ReasonIsTrue"));
  Logs in_time;
  in_time.Ask(1, "k1", 5000).Created(10).Ack(11, "k1", "AD_1");
  in_time.Ended(5010, "FAILED", "NO_WORKER_BEFORE_DEADLINE");
  EXPECT_THAT(in_time.Broken(), IsEmpty());
  EXPECT_THAT(Good().Door(950, "refuse", 300, 100, "AW_2").Broken(), Only("ReasonIsTrue"));
}

TEST(CheckerTest, NoNeedlessRestart) {
  // Its worker lived, renewed, and had it.
  Logs needless = Running();
  needless.Event(500, "job_pending", "PENDING", 100, "AW_1", "WORKER_LOST");
  EXPECT_THAT(needless.Broken(), Contains("NoNeedlessRestart"));
  Logs double_lease = Running();
  double_lease.Event(500, "job_pending", "PENDING", 100, "AW_1", "WORKER_LOST");
  double_lease.Leased(501, 200, "AW_2").Leased(502, 300, "AW_1");
  EXPECT_THAT(double_lease.Broken(), Contains("NoNeedlessRestart"));
  // Its session was ended while it renewed its lease: the process came back as a new worker.
  Logs cut = SecondAttempt();
  cut.Renewed(400, "AW_1").Begin(1500, "AW_3", 2, 10);
  EXPECT_THAT(cut.Broken(), Contains("NoNeedlessRestart"));
  Logs silent = Running();
  silent.Renewed(400, "AW_1").SessionEnded(12'500, "AW_1").Begin(13'000, "AW_3", 2, 10);
  silent.Event(12'500, "job_pending", "PENDING", 100, "AW_1", "WORKER_LOST");
  EXPECT_THAT(silent.Broken(), Not(Contains("NoNeedlessRestart")));
}

TEST(CheckerTest, OneAdmitted) {
  EXPECT_THAT(SecondAttempt().Door(510, "admit", 200, 200, "AW_2").Broken(),
              Contains("OneAdmitted"));
  EXPECT_EQ(SecondAttempt().Door(510, "admit", 200, 200, "AW_2").Judge().doubled, 1);
  // On another room server.
  Logs elsewhere = SecondAttempt();
  elsewhere.RoomServer(0, "begin", "r2").Door(510, "admit", 200, 200, "AW_2", "r2");
  EXPECT_THAT(elsewhere.Broken(), Contains("OneAdmitted"));
  // The first one's server was killed before: nobody is in.
  elsewhere.RoomServer(505, "killed");
  EXPECT_THAT(elsewhere.Broken(), Not(Contains("OneAdmitted")));
  Logs falling = SecondAttempt();
  falling.Door(505, "remove", 100, 100, "AW_1").Door(510, "admit", 200, 200, "AW_2");
  falling.Door(520, "remove", 200, 200, "AW_2").Door(530, "admit", 100, 200, "AW_1");
  EXPECT_THAT(falling.Broken(), Contains("OneAdmitted"));
}

TEST(CheckerTest, SlotsNeverExceeded) {
  Logs run;
  run.Begin(0, "AW_1", 1, 10);
  for (const std::string n : {"1", "2"}) {
    run.Ask(1, "k" + n).Created(10, "AJ_" + n, "AD_" + n).Ack(11, "k" + n, "AD_" + n);
    run.Leased(12, n == "1" ? 100 : 200, "AW_1", "AJ_" + n, "AD_" + n);
  }
  EXPECT_THAT(run.Broken(), Contains("SlotsNeverExceeded"));
  Logs processes = Good();  // two slots, three processes
  for (const uint64_t token : {501, 502, 503}) processes.Worker(800, "start", "AW_1", token);
  EXPECT_THAT(processes.Broken(), Contains("SlotsNeverExceeded"));
}

TEST(CheckerTest, CapNeverExceeded) {
  Options one;
  one.caps["default"] = 1;
  EXPECT_THAT(Good().Broken(one), IsEmpty());
  Logs two = Running();
  two.Ask(1, "k2").Created(30, "AJ_2", "AD_2").Ack(31, "k2", "AD_2");
  two.Leased(32, 300, "AW_2", "AJ_2", "AD_2");
  EXPECT_THAT(two.Broken(one), Contains("CapNeverExceeded"));
  EXPECT_THAT(two.Broken(), Not(Contains("CapNeverExceeded")));
}

TEST(CheckerTest, QueueOrderKept) {
  Options one;
  one.one_queue = true;
  EXPECT_THAT(Good().Broken(one), IsEmpty());
  EXPECT_THAT(SecondAttempt().Broken(one), Not(Contains("QueueOrderKept")));
  Logs waiting;  // 1 and 2 wait, 3 is made when a slot is free
  waiting.Created(0, "AJ_1", "AD_1").Created(1, "AJ_2", "AD_2");
  Logs fair = waiting;
  fair.Leased(2, 10, "AW_1", "AJ_1", "AD_1").Leased(3, 11, "AW_1", "AJ_2", "AD_2");
  EXPECT_THAT(fair.Broken(one), Not(Contains("QueueOrderKept")));
  Logs unfair = waiting;
  unfair.Leased(2, 10, "AW_1", "AJ_2", "AD_2").Leased(3, 11, "AW_1", "AJ_1", "AD_1");
  EXPECT_THAT(unfair.Broken(one), Contains("QueueOrderKept"));
  EXPECT_THAT(unfair.Broken(), Not(Contains("QueueOrderKept")));
  // Who was leased before, or has left the queue, is not waited for.
  Logs left = waiting;
  left.Terminate(1, "AD_1").Ended(2, "CANCELLED", "TERMINATED");
  left.Leased(3, 10, "AW_1", "AJ_2", "AD_2");
  EXPECT_THAT(left.Broken(one), Not(Contains("QueueOrderKept")));
  Logs again = fair;
  again.Event(4, "job_pending", "PENDING", 10, "AW_1", "WORKER_LOST", "AJ_1", "AD_1");
  again.Created(5, "AJ_3", "AD_3").Leased(6, 12, "AW_1", "AJ_3", "AD_3");
  EXPECT_THAT(again.Broken(one), Not(Contains("QueueOrderKept")));
}

TEST(CheckerTest, LinesOfOtherFormsAreRefused) {
  History history;
  for (const char* line :
       {"{", "[]", "{}", R"({"what":"begin"})", R"({"what":"start","time_us":1,"worker":"AW_1"})",
        R"({"what":"start","time_us":-1,"worker":"AW_1","job":"AJ_1","token":1})",
        R"({"what":"start","time_us":1,"worker":"AW_1","job":"AJ_1","token":"x"})",
        R"({"what":"dance","time_us":1,"worker":"AW_1"})"}) {
    EXPECT_FALSE(AddLine(Source::kWorkers, "log", 1, line, history).ok()) << line;
  }
  for (const char* position : {"", "1", "1-", "-1", "q=1-2", "1-2-3x", "1-99999999999999999999"}) {
    const std::string line = fmt::format(
        R"({{"position":"{}","pool":"p","time":"2026-01-01T00:00:00Z","type":"worker_ended"}})",
        position);
    EXPECT_FALSE(AddLine(Source::kEvents, "log", 1, line, history).ok()) << line;
  }
  EXPECT_TRUE(AddLine(Source::kEvents, "log", 1,
                      R"({"position":"a=1-2,p=3-4","pool":"p","time":"2026-01-01T00:00:00Z",)"
                      R"("type":"worker_ended"})",
                      history)
                  .ok());
  ASSERT_EQ(history.events.size(), 1u);
  EXPECT_EQ(history.events[0].epoch, 3u);
  EXPECT_EQ(history.events[0].number, 4u);
  EXPECT_TRUE(history.workers.empty());
}

}  // namespace
}  // namespace parley::checker
