#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "redis/redis.h"
#include "testing/matchers.h"

namespace parley::testing {

// A folder of its own under the system's temporary one, removed at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = std::filesystem::temp_directory_path() / "parley-XXXXXX";
    path_ = ::mkdtemp(pattern.data()) == nullptr ? "" : pattern;
    EXPECT_FALSE(path_.empty());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// One redis-server for all tests of the fixture, emptied before each of them.
class RedisTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TemporaryDirectory>();
    auto server = redis::PrivateServer::Start(directory_->path());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
  }
  static void TearDownTestSuite() {
    server_.reset();
    directory_.reset();
  }
  void SetUp() override {
    ASSERT_NE(server_, nullptr);
    if (server_->pid() <= 0) {
      PARLEY_ASSERT_OK(server_->Restart());
    }
    pool_ = std::make_unique<redis::Pool>(PoolConfig(), log::Logger());
    PARLEY_ASSERT_OK(pool_->Command({"FLUSHALL"}));
  }
  void TearDown() override { pool_.reset(); }

  static redis::Config PoolConfig() {
    redis::Config config;
    config.address = server_->address();
    return config;
  }
  redis::Pool& pool() { return *pool_; }
  static redis::PrivateServer& server() { return *server_; }

 private:
  static inline std::unique_ptr<TemporaryDirectory> directory_;
  static inline std::unique_ptr<redis::PrivateServer> server_;
  std::unique_ptr<redis::Pool> pool_;
};

}  // namespace parley::testing
