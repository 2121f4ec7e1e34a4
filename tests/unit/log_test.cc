#include "log/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

}  // namespace
}  // namespace parley::log
