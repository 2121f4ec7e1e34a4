#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "base/status.h"
#include "config/table.h"

namespace parley::config {
namespace {

struct Settings {
  int slots = 10;
  absl::Duration lease = absl::Seconds(12);
  std::string address = "127.0.0.1";
  std::string secret;
  bool dev = false;
  std::vector<std::string> names;
};

class TableTest : public testing::Test {
 protected:
  TableTest() : table_("parley-test", "A test.") {
    table_.Int("worker.slots", &s_.slots, 1, 1000, "Slots");
    table_.Duration("worker.lease", &s_.lease, absl::Seconds(1), absl::Hours(1), "Lease");
    table_.Text("address", &s_.address, "Address");
    table_.Text("secret", &s_.secret, "Secret");
    table_.NotAFlag();
    table_.AlsoFromEnv("OTHER_SECRET");
    table_.Bool("dev", &s_.dev, "Development");
    table_.List("names", &s_.names, "Names");
  }
  ~TableTest() override {
    for (const char* name : {"PARLEY_WORKER_SLOTS", "OTHER_SECRET", "PARLEY_SECRET"})
      unsetenv(name);
  }
  absl::Status Parse(std::vector<const char*> args) {
    args.insert(args.begin(), "parley-test");
    return table_.Parse(static_cast<int>(args.size()), args.data()).status;
  }
  static std::string WriteFile(const std::string& text) {
    const std::string path = testing::TempDir() + "parley_config_test.yaml";
    std::ofstream(path) << text;
    return path;
  }
  Settings s_;
  Table table_;
};

TEST_F(TableTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string path = WriteFile("worker:\n  slots: 20\n  lease: 20s\naddress: file\n");
  setenv("PARLEY_WORKER_SLOTS", "30", 1);
  ASSERT_TRUE(Parse({"--config", path.c_str(), "--address", "flag"}).ok());
  EXPECT_EQ(s_.slots, 30);
  EXPECT_EQ(s_.lease, absl::Seconds(20));
  EXPECT_EQ(s_.address, "flag");
}

TEST_F(TableTest, SwitchesNeedNoValue) {
  ASSERT_TRUE(Parse({"--dev", "--names", "a, b,,c"}).ok());
  EXPECT_TRUE(s_.dev);
  EXPECT_THAT(s_.names, testing::ElementsAre("a", "b", "c"));
}

TEST_F(TableTest, UnknownKeysAndBadValuesNameTheirPlace) {
  const std::string path = WriteFile("worker:\n  slots: 20\n  slotz: 1\n");
  const absl::Status status = Parse({"--config", path.c_str()});
  EXPECT_THAT(std::string(Message(status)),
              testing::HasSubstr(":3: unknown setting \"worker.slotz\""));
  EXPECT_THAT(
      std::string(Message(Parse({"--worker-slots", "0"}))),
      testing::AllOf(testing::HasSubstr("--worker-slots"), testing::HasSubstr("1 to 1000")));
  EXPECT_FALSE(Parse({"--worker-lease", "5"}).ok());
  EXPECT_FALSE(Parse({"--nonsense"}).ok());
  EXPECT_FALSE(Parse({"--config", "/nonexistent/x.yaml"}).ok());
}

TEST_F(TableTest, SecretsComeFromTheEnvironmentOnly) {
  EXPECT_FALSE(Parse({"--secret", "x"}).ok());
  setenv("OTHER_SECRET", "from-other", 1);
  ASSERT_TRUE(Parse({}).ok());
  EXPECT_EQ(s_.secret, "from-other");
  setenv("PARLEY_SECRET", "from-own", 1);
  ASSERT_TRUE(Parse({}).ok());
  EXPECT_EQ(s_.secret, "from-own");
}

TEST_F(TableTest, HelpNamesEverySetting) {
  const std::string help = table_.Help();
  for (const char* flag : {"--worker-slots", "--worker-lease", "--dev", "PARLEY_SECRET"}) {
    EXPECT_THAT(help, testing::HasSubstr(flag));
  }
  EXPECT_THAT(help, testing::Not(testing::HasSubstr("--secret")));
}

}  // namespace
}  // namespace parley::config
