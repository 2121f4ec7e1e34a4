// The parts of the agent server that need no process: framing, the table of jobs, the load.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "agent/job/frame.h"
#include "agent/server/config.h"
#include "agent/server/death_report.h"
#include "agent/server/job_logs.h"
#include "agent/server/job_table.h"
#include "agent/server/load.h"
#include "agent/server/recordings.h"
#include "agent/server/wake_rule.h"
#include "testing/matchers.h"

namespace parley::agent {
namespace {

namespace dispatchv1 = parley::dispatch::v1;
using dispatchv1::ReportedJob;
using dispatchv1::ResumeVerdict;
using dispatchv1::Word;
using dispatchv1::WordVerdict;
using Admission = JobTable::Admission;
using Order = JobTable::Order;

// ---- how many frames a job wakes up for ----

constexpr int64_t kFrameUs = 20'000;
constexpr uint32_t kLoud = 20;
constexpr uint32_t kQuiet = 90;

// How many of `frames` wake the job up.
int Wakes(WakeRule& rule, int64_t& now_us, int frames, uint32_t level) {
  int wakes = 0;
  for (int i = 0; i < frames; ++i, now_us += kFrameUs) {
    wakes += rule.MayWait(1, level, now_us) ? 0 : 1;
  }
  return wakes;
}

TEST(WakeRuleTest, SilenceComesInTwentiesASecondAfterSpeech) {
  WakeRule rule;
  int64_t now_us = 10'000'000;
  EXPECT_EQ(Wakes(rule, now_us, 10, kLoud), 10) << "speech begins";
  EXPECT_EQ(Wakes(rule, now_us, 30, kLoud), 6) << "in fives";
  EXPECT_EQ(Wakes(rule, now_us, 49, kQuiet), 49);
  EXPECT_EQ(Wakes(rule, now_us, 100, kQuiet), 5);
  EXPECT_EQ(Wakes(rule, now_us, 1, kLoud), 1) << "takes along what waits";
}

TEST(WakeRuleTest, SilenceWaitsAtOnceWhenTheUtteranceIsOver) {
  WakeRule rule;
  int64_t now_us = 10'000'000;
  Wakes(rule, now_us, 10, kLoud);
  rule.UtteranceOver(now_us);
  EXPECT_EQ(Wakes(rule, now_us, 40, kQuiet), 2);
  EXPECT_EQ(Wakes(rule, now_us, 10, kLoud), 10) << "another begins";
}

TEST(WakeRuleTest, PausesShorterThanAnEndComeInFives) {
  WakeRule rule;
  int64_t now_us = 10'000'000;
  Wakes(rule, now_us, 20, kLoud);
  EXPECT_EQ(Wakes(rule, now_us, 20, kQuiet), 20) << "how long an end takes is not known yet";
  rule.UtteranceOver(now_us);  // 420 ms after what could be heard
  EXPECT_EQ(Wakes(rule, now_us, 30, kLoud), 10 + 4);
  EXPECT_EQ(Wakes(rule, now_us, 13, kQuiet), 2) << "up to 150 ms before it may be one";
  EXPECT_EQ(Wakes(rule, now_us, 7, kQuiet), 7);
  Wakes(rule, now_us, 30, kLoud);
  rule.UtteranceOver(now_us);  // in the middle of it: nothing is known of pauses
  Wakes(rule, now_us, 30, kLoud);
  EXPECT_EQ(Wakes(rule, now_us, 20, kQuiet), 20);
}

TEST(WakeRuleTest, WhoNeverSaysHowLoudIsNotWaitedFor) {
  WakeRule rule;
  int64_t now_us = 10'000'000;
  EXPECT_EQ(Wakes(rule, now_us, 60, 0), 60);
  EXPECT_EQ(Wakes(rule, now_us, 60, 127), 60);
}

TEST(WakeRuleTest, WhatIsLeftOfSpeechGoesAfterTwoFrames) {
  WakeRule rule;
  int64_t now_us = 10'000'000;
  EXPECT_EQ(Wakes(rule, now_us, 11, kLoud), 10);
  const int64_t last_us = now_us - kFrameUs;
  EXPECT_FALSE(rule.Stranded(last_us + 2 * kFrameUs));
  EXPECT_TRUE(rule.Stranded(last_us + 2 * kFrameUs + 1));
  EXPECT_FALSE(rule.Stranded(last_us + 3 * kFrameUs)) << "once";
}

// ---- framing ----

TEST(FrameTest, CutsWhatWasJoinedHoweverItArrives) {
  std::string bytes;
  const std::vector<std::string> payloads = {"", "a", std::string(70'000, 'x'), "last"};
  for (const std::string& payload : payloads) AppendFrame(payload, bytes);
  for (size_t step : {size_t{1}, size_t{3}, size_t{4096}, bytes.size()}) {
    FrameReader reader;
    std::vector<std::string> got;
    for (size_t at = 0; at < bytes.size(); at += step) {
      reader.Append(std::string_view(bytes).substr(at, step));
      for (;;) {
        auto frame = reader.Next();
        ASSERT_TRUE(frame.ok());
        if (!frame->has_value()) break;
        got.emplace_back(**frame);
      }
    }
    EXPECT_EQ(got, payloads) << step;
    EXPECT_EQ(reader.buffered(), 0U);
  }
}

TEST(FrameTest, LengthIsLittleEndian) {
  std::string bytes;
  AppendFrame(std::string(0x0102, 'x'), bytes);
  EXPECT_EQ(bytes.substr(0, 4), std::string("\x02\x01\x00\x00", 4));
}

TEST(FrameTest, RefusesAFrameOverTheLimit) {
  FrameReader reader;
  reader.Append(std::string_view("\x01\x00\x10\x00", 4));  // 1 MiB + 1
  EXPECT_TRUE(absl::IsInvalidArgument(reader.Next().status()));
}

// ---- recordings ----

class RecordingFilesTest : public ::testing::Test {
 protected:
  RecordingFilesTest() : folder_(::testing::TempDir() + "recordings-" + std::to_string(getpid())) {}
  ~RecordingFilesTest() override { std::filesystem::remove_all(folder_); }
  static parley::job::v1::Recording Session(const std::string& text) {
    parley::job::v1::Recording recording;
    recording.set_session(text);
    return recording;
  }
  const std::string folder_;
};

TEST_F(RecordingFilesTest, AFullFolderTakesNothingMore) {
  RecordingFiles files(folder_, 100);
  PARLEY_ASSERT_OK(files.Open());
  const std::string name = RecordingFiles::NameOf("hotel", "AS_1", 7);
  PARLEY_EXPECT_OK(files.Append(name, Session(std::string(60, 'x'))));
  EXPECT_TRUE(absl::IsResourceExhausted(files.Append(name, Session(std::string(60, 'x')))));
  EXPECT_EQ(files.bytes(), 60);
  EXPECT_TRUE(files.List("", 10).empty()) << "it is being written";
  PARLEY_EXPECT_OK(files.End(name));
  // Whoever comes next counts what is there.
  RecordingFiles again(folder_, 100);
  PARLEY_ASSERT_OK(again.Open());
  EXPECT_EQ(again.bytes(), 60);
  ASSERT_EQ(again.List("", 10).size(), 1U);
  EXPECT_EQ(again.List("", 10)[0].session_id, "AS_1");
  again.Erase("AS_2");
  EXPECT_EQ(again.bytes(), 60);
  again.Erase("AS_1");
  EXPECT_EQ(again.bytes(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(RecordingFilesTest, NamesStayInTheFolder) {
  EXPECT_EQ(RecordingFiles::NameOf("hotel", "AS_1", 7), "hotel.AS_1.7");
  for (const char* bad : {"", "..", "a/b", "a.b", "a b"}) {
    EXPECT_EQ(RecordingFiles::NameOf(bad, "AS_1", 7), "") << bad;
    EXPECT_EQ(RecordingFiles::NameOf("hotel", bad, 7), "") << bad;
  }
}

TEST_F(RecordingFilesTest, ListsPageByPage) {
  RecordingFiles files(folder_, 1'000);
  PARLEY_ASSERT_OK(files.Open());
  for (const char* id : {"AS_1", "AS_2", "AS_3"}) {
    for (const uint64_t token : {1, 2}) {
      const std::string name = RecordingFiles::NameOf("hotel", id, token);
      PARLEY_EXPECT_OK(files.Append(name, Session("x")));
      PARLEY_EXPECT_OK(files.End(name));
    }
  }
  const auto ids = [&](std::string_view after) {
    std::string text;
    for (const auto& one : files.List(after, 2)) text += one.session_id + " ";
    return text;
  };
  EXPECT_EQ(ids(""), "AS_1 AS_2 ");
  EXPECT_EQ(ids("AS_2"), "AS_3 ");
  EXPECT_EQ(ids("AS_3"), "");
}

// ---- the table ----

dispatchv1::Assignment Record(const std::string& job, uint64_t token) {
  dispatchv1::Assignment record;
  record.set_job_id(job);
  record.set_fencing_token(token);
  record.set_room("lobby");
  return record;
}

WordVerdict Verdict(const JobKey& key, Word::Kind kind, WordVerdict::Outcome outcome,
                    dispatchv1::JobState state = dispatchv1::JOB_STATE_UNSPECIFIED) {
  WordVerdict verdict;
  verdict.set_job_id(key.job_id);
  verdict.set_fencing_token(key.token);
  verdict.set_kind(kind);
  verdict.set_outcome(outcome);
  verdict.set_state(state);
  return verdict;
}

class JobTableTest : public ::testing::Test {
 protected:
  Word OnlyWord() {
    const auto words = table_.Unanswered();
    EXPECT_EQ(words.size(), 1U);
    return words.empty() ? Word() : words[0];
  }
  ReportedJob OnlyReported() {
    const auto report = table_.MakeReport();
    EXPECT_EQ(report.jobs_size(), 1);
    return report.jobs_size() == 1 ? report.jobs(0) : ReportedJob();
  }
  JobTable table_{2};
  const JobKey one_{"AJ_1", 10};
};

TEST_F(JobTableTest, SlotsNeverExceeded) {
  EXPECT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  EXPECT_EQ(table_.Admit(Record("AJ_2", 11)), Admission::kStart);
  EXPECT_EQ(table_.Admit(Record("AJ_3", 12)), Admission::kFull);
  table_.Ended(one_, dispatchv1::JOB_REASON_SHUTDOWN, "", {}, 1);
  EXPECT_EQ(table_.Admit(Record("AJ_3", 12)), Admission::kStart);
  EXPECT_EQ(table_.active(), 2);
}

TEST_F(JobTableTest, SlotIsHeldUntilTheProcessIsGone) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  table_.Stopping(one_);
  EXPECT_EQ(table_.active(), 1);
  EXPECT_EQ(OnlyReported().status(), ReportedJob::STOPPING);
  table_.Released(one_, 1);
  EXPECT_EQ(table_.active(), 0);
  table_.Released(one_, 1);
  EXPECT_EQ(table_.active(), 0);  // saying it twice is saying it once
}

TEST_F(JobTableTest, SameGoTwiceStartsOnce) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  EXPECT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kKnown);
  table_.Ended(one_, dispatchv1::JOB_REASON_SHUTDOWN, "", {}, 1);
  EXPECT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kKnown);
}

TEST_F(JobTableTest, NeverTakesATokenItGaveUp) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  table_.Released(one_, 1);
  ASSERT_EQ(table_.OnVerdict(Verdict(one_, Word::RELEASED, WordVerdict::OK), 2), Order::kNone);
  table_.Sweep(100'000'000);  // forgotten as an entry, not as given up
  EXPECT_EQ(table_.MakeReport().jobs_size(), 0);
  EXPECT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kOver);
  EXPECT_EQ(table_.Admit(Record("AJ_1", 9)), Admission::kOver);
  EXPECT_EQ(table_.Admit(Record("AJ_1", 11)), Admission::kStart);
}

TEST_F(JobTableTest, WordsAreCumulative) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  EXPECT_FALSE(table_.has_unanswered());  // this worker accepts all
  table_.Started(one_);
  EXPECT_EQ(OnlyWord().kind(), Word::STARTED);
  table_.Ended(one_, dispatchv1::JOB_REASON_PROCESS_CRASHED, "signal 11", {}, 1);
  EXPECT_EQ(OnlyWord().kind(), Word::ENDED);
  EXPECT_EQ(OnlyWord().reason(), dispatchv1::JOB_REASON_PROCESS_CRASHED);
  EXPECT_EQ(OnlyWord().error(), "signal 11");
  // The late answer to `started` says nothing about `ended`.
  EXPECT_EQ(table_.OnVerdict(Verdict(one_, Word::STARTED, WordVerdict::OK), 2), Order::kNone);
  EXPECT_EQ(OnlyWord().kind(), Word::ENDED);
}

TEST_F(JobTableTest, ToBeTakenOverIsPreparedThenAsAnyOther) {
  dispatchv1::Assignment record = Record("AJ_1", 7);
  record.set_take_over(true);
  ASSERT_EQ(table_.Admit(record), Admission::kStart);
  EXPECT_EQ(table_.active(), 1);
  EXPECT_EQ(table_.MakeReport().jobs(0).status(), ReportedJob::PREPARED);
  EXPECT_FALSE(table_.has_unanswered());  // no process yet
  table_.Started({"AJ_1", 7});            // it may not
  EXPECT_EQ(table_.MakeReport().jobs(0).status(), ReportedJob::PREPARED);
  table_.Prepared({"AJ_1", 7});
  ASSERT_EQ(table_.Unanswered().size(), 1U);
  EXPECT_EQ(table_.Unanswered()[0].kind(), Word::PREPARED);
  EXPECT_TRUE(table_.Running().empty());
  table_.TakingOver({"AJ_1", 7});
  EXPECT_FALSE(table_.has_unanswered());
  EXPECT_EQ(table_.MakeReport().jobs(0).status(), ReportedJob::ACCEPTED);
  EXPECT_FALSE(table_.MakeReport().jobs(0).record().take_over());
  table_.Prepared({"AJ_1", 7});  // too late
  EXPECT_FALSE(table_.has_unanswered());
  table_.Started({"AJ_1", 7});
  EXPECT_EQ(table_.Running().size(), 1U);
}

TEST_F(JobTableTest, HeldWordsStay) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  table_.Started(one_);
  EXPECT_EQ(table_.OnVerdict(Verdict(one_, Word::STARTED, WordVerdict::HELD), 2), Order::kNone);
  EXPECT_TRUE(table_.has_unanswered());
}

TEST_F(JobTableTest, StaleWriterIsKilled) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  table_.Started(one_);
  EXPECT_EQ(table_.OnVerdict(Verdict(one_, Word::STARTED, WordVerdict::STALE), 2), Order::kKill);
}

TEST_F(JobTableTest, CancelledBeforeItStartedIsKilled) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  table_.Started(one_);
  EXPECT_EQ(
      table_.OnVerdict(
          Verdict(one_, Word::STARTED, WordVerdict::RECORDED, dispatchv1::JOB_STATE_CANCELLED), 2),
      Order::kKill);
}

TEST_F(JobTableTest, RecordedEndsAreReportedForAMinute) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  table_.Ended(one_, dispatchv1::JOB_REASON_SHUTDOWN, "", {}, 1'000'000);
  EXPECT_FALSE(OnlyReported().recorded());
  table_.OnVerdict(
      Verdict(one_, Word::ENDED, WordVerdict::RECORDED, dispatchv1::JOB_STATE_SUCCEEDED),
      2'000'000);
  EXPECT_FALSE(table_.has_unanswered());
  EXPECT_TRUE(OnlyReported().recorded());
  EXPECT_EQ(OnlyReported().recorded_state(), dispatchv1::JOB_STATE_SUCCEEDED);
  table_.Sweep(61'000'000);
  EXPECT_EQ(table_.MakeReport().jobs_size(), 1);
  table_.Sweep(63'000'000);
  EXPECT_EQ(table_.MakeReport().jobs_size(), 0);
}

TEST_F(JobTableTest, AWordIsSaidOnceUntilItIsDueAgain) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  ASSERT_EQ(table_.Admit(Record("AJ_2", 11)), Admission::kStart);
  table_.Started(one_);
  EXPECT_EQ(table_.TakeUnsaid(100).size(), 1U);
  table_.Started({"AJ_2", 11});
  const auto second = table_.TakeUnsaid(200);  // not the first one again
  ASSERT_EQ(second.size(), 1U);
  EXPECT_EQ(second[0].job_id(), "AJ_2");
  EXPECT_EQ(table_.Unanswered().size(), 2U);
  table_.SayAgain(150);
  const auto again = table_.TakeUnsaid(300);
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].job_id(), "AJ_1");
  table_.OnVerdict(Verdict(one_, Word::STARTED, WordVerdict::OK), 400);
  table_.SayAgain(1000);
  EXPECT_EQ(table_.TakeUnsaid(1000).size(), 1U);
  table_.Ended({"AJ_2", 11}, dispatchv1::JOB_REASON_SHUTDOWN, "", {}, 1100);
  table_.OnVerdict(Verdict({"AJ_2", 11}, Word::STARTED, WordVerdict::OK), 1200);
  const auto ended = table_.TakeUnsaid(1300);  // the answer was to the word before
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_EQ(ended[0].kind(), Word::ENDED);
}

// An hour of 300 jobs a second must not become a report that no message can carry.
TEST_F(JobTableTest, WhatIsKeptIsBounded) {
  constexpr int kJobs = 60'000;
  for (int i = 0; i < kJobs; ++i) {
    const JobKey key{"AJ_" + std::to_string(i), static_cast<uint64_t>(1000 + i)};
    dispatchv1::Assignment record = Record(key.job_id, key.token);
    record.set_metadata(std::string(500, 'm'));
    dispatchv1::SessionReport session;
    session.add_transcript()->set_text(std::string(2000, 't'));
    ASSERT_EQ(table_.Admit(record), Admission::kStart);
    table_.Ended(key, dispatchv1::JOB_REASON_SHUTDOWN, "", session, i * 3000);
    table_.OnVerdict(Verdict(key, Word::ENDED, WordVerdict::OK, dispatchv1::JOB_STATE_SUCCEEDED),
                     i * 3000);
    if (i % 300 == 0) table_.Sweep(i * 3000);
  }
  table_.Sweep(kJobs * 3000);
  const dispatchv1::Report report = table_.MakeReport();
  EXPECT_LE(report.ByteSizeLong(), 2'200'000U);
  EXPECT_GE(report.jobs_size(), 3000);  // the newest: ten seconds of such jobs
  EXPECT_EQ(report.jobs(report.jobs_size() - 1).job_id(), "AJ_59999");
  EXPECT_TRUE(report.jobs(0).recorded());
  EXPECT_EQ(table_.Admit(Record("AJ_59999", kJobs + 999)), Admission::kKnown);
  EXPECT_EQ(table_.Admit(Record("AJ_55500", 56'500)), Admission::kOver);
  EXPECT_EQ(table_.Admit(Record("AJ_1", 1001)), Admission::kStart);  // forgotten
}

TEST_F(JobTableTest, ATokenGivenUpTwiceIsForgottenOnce) {
  for (uint64_t token = 10; token < 13; ++token) {
    ASSERT_EQ(table_.Admit(Record("AJ_1", token)), Admission::kStart);
    table_.Released({"AJ_1", token}, token == 12 ? 500'000'000 : 1);
  }
  table_.Sweep(700'000'000);
  EXPECT_EQ(table_.Admit(Record("AJ_1", 12)), Admission::kKnown);  // its release is unanswered
  EXPECT_EQ(table_.Admit(Record("AJ_1", 9)), Admission::kOver);
  table_.Sweep(1'200'000'000);
  EXPECT_EQ(table_.Admit(Record("AJ_1", 9)), Admission::kStart);
}

TEST_F(JobTableTest, UnrecordedEndsAreKept) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  table_.Ended(one_, dispatchv1::JOB_REASON_SHUTDOWN, "", {}, 1'000'000);
  table_.Sweep(1'000'000'000);
  EXPECT_TRUE(table_.has_unanswered());
}

TEST_F(JobTableTest, ResumeVerdicts) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  ResumeVerdict verdict;
  verdict.set_job_id("AJ_1");
  verdict.set_fencing_token(10);
  verdict.set_action(ResumeVerdict::KEEP);
  EXPECT_EQ(table_.OnResume(verdict, 1), Order::kNone);
  verdict.set_action(ResumeVerdict::STOP);
  EXPECT_EQ(table_.OnResume(verdict, 1), Order::kStop);
  verdict.set_action(ResumeVerdict::REVOKE);
  EXPECT_EQ(table_.OnResume(verdict, 1), Order::kKill);
  verdict.set_fencing_token(9);
  EXPECT_EQ(table_.OnResume(verdict, 1), Order::kNone);  // not a job of ours
}

TEST_F(JobTableTest, ResumeSettlesARecordedEnd) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  table_.Ended(one_, dispatchv1::JOB_REASON_SHUTDOWN, "", {}, 1);
  ResumeVerdict verdict;
  verdict.set_job_id("AJ_1");
  verdict.set_fencing_token(10);
  verdict.set_action(ResumeVerdict::REVOKE);
  verdict.set_recorded_state(dispatchv1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(table_.OnResume(verdict, 2), Order::kNone);
  EXPECT_FALSE(table_.has_unanswered());
}

TEST_F(JobTableTest, NewerAttemptFindsTheOlderOnes) {
  ASSERT_EQ(table_.Admit(Record("AJ_1", 10)), Admission::kStart);
  ASSERT_EQ(table_.Admit(Record("AJ_1", 12)), Admission::kStart);
  EXPECT_THAT(table_.OlderThan({"AJ_1", 12}), ::testing::ElementsAre(one_));
  EXPECT_THAT(table_.OlderThan(one_), ::testing::IsEmpty());
}

TEST_F(JobTableTest, ReportLeavesTheCheckpointOut) {
  dispatchv1::Assignment record = Record("AJ_1", 10);
  record.set_checkpoint(std::string(1000, 'x'));
  ASSERT_EQ(table_.Admit(record), Admission::kStart);
  EXPECT_EQ(OnlyReported().record().room(), "lobby");
  EXPECT_TRUE(OnlyReported().record().checkpoint().empty());
}

// ---- the rest ----

TEST(LoadTest, MedianIgnoresASpike) {
  EXPECT_EQ(Median({}), 0);
  EXPECT_EQ(Median({0.2, 0.2, 1.0, 0.3, 0.2}), 0.2);
}

// ---- what jobs wrote ----

class JobLogFilesTest : public ::testing::Test {
 protected:
  JobLogFilesTest() : files_(folder_, {4096, 10'000, 3}) {}
  ~JobLogFilesTest() override { files_.Clear(); }
  absl::Status Write(const std::string& job, int64_t seq) {
    dispatchv1::JobLogLine line;
    line.set_seq(seq);
    line.set_message(std::string(100, 'x'));
    std::string frames;
    AppendFrame(line.SerializeAsString(), frames);
    return files_.Append(job, frames);
  }
  std::vector<int64_t> Numbers(const std::string& job, int64_t after = 0) {
    std::vector<int64_t> numbers;
    const auto lines = files_.Read(job, after);
    for (const auto& line : *lines) numbers.push_back(line.seq());
    return numbers;
  }
  const std::string folder_ = ::testing::TempDir() + "job-logs-" + std::to_string(getpid());
  JobLogFiles files_;
};

TEST_F(JobLogFilesTest, KeepsTheNewestLinesInOrder) {
  ASSERT_TRUE(files_.Open().ok());
  for (int64_t seq = 1; seq <= 200; ++seq) ASSERT_TRUE(Write("AJ_1", seq).ok());
  const std::vector<int64_t> kept = Numbers("AJ_1");
  EXPECT_EQ(kept.back(), 200);
  EXPECT_GE(kept.size(), 15u);  // half of 4096 bytes at least
  EXPECT_LE(kept.size(), 40u);
  for (size_t i = 1; i < kept.size(); ++i) EXPECT_EQ(kept[i], kept[i - 1] + 1);
  EXPECT_EQ(Numbers("AJ_1", 198), (std::vector<int64_t>{199, 200}));
  EXPECT_LE(files_.bytes(), 4096);
}

TEST_F(JobLogFilesTest, ForgetsTheJobThatWroteLongestAgo) {
  ASSERT_TRUE(files_.Open().ok());
  for (const char* job : {"AJ_1", "AJ_2", "AJ_3"}) ASSERT_TRUE(Write(job, 1).ok());
  ASSERT_TRUE(Write("AJ_1", 2).ok());
  ASSERT_TRUE(Write("AJ_4", 1).ok());
  EXPECT_TRUE(absl::IsNotFound(files_.Read("AJ_2", 0).status()));
  EXPECT_EQ(Numbers("AJ_1").size(), 2u);
  EXPECT_EQ(Numbers("AJ_4").size(), 1u);
}

TEST_F(JobLogFilesTest, TakesNoPathForAnId) {
  ASSERT_TRUE(files_.Open().ok());
  for (const char* id : {"../x", "", "a/b", ".."}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Write(id, 1))) << id;
  }
}

TEST_F(JobLogFilesTest, AFolderThatCannotBeMadeIsNamed) {
  JobLogFiles files("/proc/no-such-folder", {});
  EXPECT_TRUE(absl::IsFailedPrecondition(files.Open()));
}

TEST(AgentServerConfigTest, PoolFollowsTheOnlyName) {
  AgentServerConfig config;
  config.agent_names = {"concierge"};
  EXPECT_EQ(config.EffectivePool(), "concierge");
  config.agent_names = {"concierge", "billing"};
  EXPECT_EQ(config.EffectivePool(), "default");
  config.pool = "gpu";
  EXPECT_EQ(config.EffectivePool(), "gpu");
  AgentServerConfig stock;
  stock.serves_configured = true;
  EXPECT_EQ(stock.EffectivePool(), "default");
}

TEST(AgentServerConfigTest, LabelsAreKeyValue) {
  AgentServerConfig config;
  config.labels = {"zone=a", "gpu="};
  ASSERT_TRUE(config.LabelMap().ok());
  EXPECT_EQ(config.LabelMap()->at("zone"), "a");
  config.labels = {"zone"};
  EXPECT_TRUE(absl::IsInvalidArgument(config.LabelMap().status()));
}

TEST(DeathNoticeTest, SurvivesItsTextForm) {
  const DeathNotice notice{"127.0.0.1:7100", "token", "AW_1", "secret", 7};
  const auto again = DeathNotice::Parse(notice.Serialize());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->worker_id, "AW_1");
  EXPECT_EQ(again->connect_seq, 7U);
  EXPECT_FALSE(DeathNotice::Parse("{}").ok());
  EXPECT_FALSE(DeathNotice::Parse("").ok());
}

}  // namespace
}  // namespace parley::agent
