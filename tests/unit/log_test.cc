#include "log/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/trace_context.h"
#include "log/append_file.h"

namespace parley::log {
namespace {

TEST(LogTest, LinesAreJsonWithBoundFields) {
  testing::internal::CaptureStderr();
  const Logger logger =
      Logger::ToStderr(Format::kJson, Level::kInfo, "test").With({{"job_id", "AJ_1"}});
  logger.Debug("not written");
  logger.Info("job \"started\"\n",
              {{"attempt", 2}, {"warm", true}, {"bad utf8", std::string("\xff")}});
  const std::string line = testing::internal::GetCapturedStderr();
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["msg"], "job \"started\"\n");
  EXPECT_EQ(json["job_id"], "AJ_1");
  EXPECT_EQ(json["attempt"], 2);
  EXPECT_EQ(json["warm"], true);
  EXPECT_EQ(json["service"], "test");
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
}

TEST(LogTest, LinesNameTheTraceThatTheThreadWorksFor) {
  testing::internal::CaptureStderr();
  const Logger logger = Logger::ToStderr(Format::kJson, Level::kInfo, "test");
  const TraceContext trace = TraceContext::Root();
  {
    const TraceScope scope(trace);
    logger.Info("within");
  }
  logger.Info("after");
  std::istringstream lines(testing::internal::GetCapturedStderr());
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(nlohmann::json::parse(line)["trace_id"], trace.TraceId());
  std::getline(lines, line);
  EXPECT_FALSE(nlohmann::json::parse(line).contains("trace_id"));
}

TEST(AppendFileTest, LinesOfKilledWritersAreWholeAndKept) {
  const std::string path = ::testing::TempDir() + "append-" + std::to_string(getpid());
  constexpr int kWriters = 4, kLines = 500;
  const std::string padding(300, 'x');
  std::vector<pid_t> writers;
  for (int writer = 0; writer < kWriters; ++writer) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      auto file = AppendFile::Open(path);
      for (int i = 0; i < kLines; ++i) {
        (*file)->Write(std::to_string(writer) + " " + std::to_string(i) + " " + padding);
      }
      kill(getpid(), SIGKILL);  // no destructor, no flush
    }
    writers.push_back(pid);
  }
  for (const pid_t pid : writers) waitpid(pid, nullptr, 0);
  std::vector<int> next(kWriters, 0);
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    size_t writer = kWriters;
    int number = -1;
    std::string rest;
    words >> writer >> number >> rest;
    ASSERT_LT(writer, next.size()) << line;
    EXPECT_EQ(number, next[writer]++);
    EXPECT_EQ(rest, padding);
  }
  EXPECT_THAT(next, ::testing::Each(kLines));
  std::filesystem::remove(path);
}

TEST(AppendFileTest, WhatCannotBeOpenedIsRefused) {
  EXPECT_EQ(AppendFile::Open("/proc/nothing/here").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace parley::log
