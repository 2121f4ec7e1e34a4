// A thousand card numbers, spoken and typed in a call of a whole cluster: once the session has
// ended they stand in no log, no metric, no trace, nowhere in Redis, and in no file that a service
// left. Providers and tools that fail quote what they were given, as real ones do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <sstream>

#include "collector.h"
#include "http/client.h"
#include "http_peer.h"
#include "log/log.h"
#include "redis/redis.h"
#include "testing/calls.h"
#include "testing/matchers.h"

namespace parley::testing {
namespace {

using nlohmann::json;

constexpr size_t kNumbers = 500;  // spoken, and as many typed
constexpr size_t kPerTurn = 250;
constexpr const char* kTool = "4012888888881881";  // the model gives it to the tool
constexpr absl::Duration kAnswer = absl::Seconds(30);

std::vector<std::string> Numbers(unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<std::string> numbers;
  for (size_t i = 0; i < kNumbers; ++i)
    numbers.push_back(std::to_string(4'000'000'000'000'000 + random() % 999'999'999'999'999));
  return numbers;
}

std::vector<std::string> Turns(const std::vector<std::string>& numbers) {
  std::vector<std::string> turns;
  for (size_t at = 0; at < numbers.size(); at += kPerTurn) {
    std::string text = "my cards are";
    for (size_t i = at; i < std::min(at + kPerTurn, numbers.size()); ++i) text += " " + numbers[i];
    turns.push_back(text);
  }
  return turns;
}

// A second of something that a voice detector takes for speech.
std::vector<int16_t> Humming() {
  std::vector<int16_t> samples(kSpeechRateHz);
  for (size_t i = 0; i < samples.size(); ++i) {
    const double t = static_cast<double>(i) / kSpeechRateHz;
    const double syllables = 0.5 + 0.5 * std::sin(2 * M_PI * 4 * t);
    double wave = 0;
    for (int harmonic = 1; harmonic < 20; ++harmonic)
      wave += std::sin(2 * M_PI * 140 * harmonic * t) / harmonic;
    samples[i] = static_cast<int16_t>(7000 * syllables * wave);
  }
  return samples;
}

void Flatten(const redis::Reply& reply, std::string& out) {
  out += reply.text + "\n";
  if (reply.type == redis::Reply::Type::kInteger) out += std::to_string(reply.integer) + "\n";
  for (const redis::Reply& element : reply.elements) Flatten(element, out);
}

// Every key with all that is in it.
std::string EverythingIn(redis::Pool& pool) {
  std::string out;
  std::string cursor = "0";
  do {
    const auto page = pool.Command({"SCAN", cursor, "COUNT", "1000"});
    EXPECT_TRUE(page.ok()) << page.status();
    if (!page.ok()) return out;
    cursor = page->elements[0].text;
    for (const redis::Reply& key : page->elements[1].elements) {
      out += key.text + "\n";
      const auto type = pool.Command({"TYPE", key.text});
      EXPECT_TRUE(type.ok()) << type.status();
      const std::string name = type.ok() ? type->text : "";
      const std::vector<std::string> read =
          name == "string"   ? std::vector<std::string>{"GET", key.text}
          : name == "hash"   ? std::vector<std::string>{"HGETALL", key.text}
          : name == "list"   ? std::vector<std::string>{"LRANGE", key.text, "0", "-1"}
          : name == "set"    ? std::vector<std::string>{"SMEMBERS", key.text}
          : name == "zset"   ? std::vector<std::string>{"ZRANGE", key.text, "0", "-1", "WITHSCORES"}
          : name == "stream" ? std::vector<std::string>{"XRANGE", key.text, "-", "+"}
                             : std::vector<std::string>{"TYPE", key.text};
      const auto value = pool.Command(read);
      EXPECT_TRUE(value.ok()) << key.text << ": " << value.status();
      if (value.ok()) Flatten(*value, out);
    }
  } while (cursor != "0");
  return out;
}

std::string Files(const std::string& folder) {
  std::stringstream out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    // Redis' own files hold what was there, for as long as Redis says.
    if (!entry.is_regular_file() || entry.path().extension() == ".rdb" ||
        entry.path().string().find("appendonly") != std::string::npos) {
      continue;
    }
    out << entry.path() << "\n" << std::ifstream(entry.path()).rdbuf();
  }
  return out.str();
}

// How many of the numbers stand in the text.
int CountIn(const std::string& text, const std::vector<std::string>& numbers) {
  return static_cast<int>(std::count_if(
      numbers.begin(), numbers.end(),
      [&text](const std::string& number) { return text.find(number) != std::string::npos; }));
}

// Fails where one stands, with what is around it.
void ExpectNone(const std::string& text, const std::vector<std::string>& numbers,
                const char* where) {
  for (const std::string& number : numbers) {
    const size_t at = text.find(number);
    if (at == std::string::npos) continue;
    ADD_FAILURE() << CountIn(text, numbers) << " numbers in " << where << ", the first in: …"
                  << text.substr(at < 400 ? 0 : at - 400, 600);
    return;
  }
}

// A provider, and a tool's server, that are out of order and quote what they were asked.
class Quoting {
 public:
  std::string url() const { return peer_.url(); }
  int asked() const { return asked_; }

 private:
  bool Serve(int client, const std::string& request) {
    ++asked_;
    // What was said last stands at the end of a prompt, what a tool is given in the first line.
    constexpr size_t kQuoted = 400;
    const std::string said = request.substr(0, request.find("\r\n")) + " " +
                             request.substr(request.size() - std::min(request.size(), kQuoted));
    json error;
    error["error"]["message"] = "cannot answer " + said;
    const std::string answer = error.dump(-1, ' ', false, json::error_handler_t::replace);
    HttpPeer::Send(client,
                   "HTTP/1.1 500 Out Of Order\r\nContent-Type: application/json\r\n"
                   "Content-Length: " +
                       std::to_string(answer.size()) + "\r\n\r\n" + answer);
    return true;
  }
  std::atomic<int> asked_ = 0;
  HttpPeer peer_{[this](int client, const std::string& request) { return Serve(client, request); }};
};

class PlantedNumbersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_ + "/cluster");
    json script = json::parse(R"({
      "stt": {"delay": "20ms", "partials": true},
      "llm": {"answers": [{"when": "charge it", "call": "charge", "arguments": {}},
                          {"text": "You said {earlier}, thanks."}]},
      "tts": {"per_character": "100us"}})");
    script["stt"]["utterances"] = Turns(spoken_);
    script["llm"]["answers"][0]["arguments"]["card"] = kTool;
    std::ofstream(folder_ + "/script.json") << script.dump();
    ClusterOptions options;
    options.work_dir = folder_ + "/cluster";
    const std::vector<std::string> all = {"--log-level", "debug", "--trace-endpoint",
                                          collector_.url()};
    for (const std::string& service : options.services) options.extra_arguments[service] = all;
    const auto add = [&](const std::string& service, std::vector<std::string> flags) {
      auto& arguments = options.extra_arguments[service];
      arguments.insert(arguments.end(), flags.begin(), flags.end());
    };
    for (const std::string kind : {"stt", "tts", "llm"})
      add(kind + "-gateway", {"--" + kind + "-script", folder_ + "/script.json"});
    add("stt-gateway", {"--stt-preload", "false"});
    add("llm-gateway", {"--llm-openai-base-url", provider_.url()});
    // The recordings themselves are what was said: they live for a day, apart from all else.
    add("tts-gateway", {"--tts-cache-dir", folder_ + "/speech"});
    add("agent-registry", {"--tools-allow-loopback"});
    options.agent_arguments = all;
    for (const std::string& flag : std::vector<std::string>{
             "--tools-allow-loopback", "--logs-folder", options.work_dir + "/jobs"}) {
      options.agent_arguments.push_back(flag);
    }
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    services_ = options.services;
  }
  ~PlantedNumbersTest() override {
    cluster_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::string Definition() const {
    json definition = json::parse(R"({
      "id": "cashier", "instructions": "Take the card.", "stt": [{"engine": "scripted"}],
      "llm": [{"engine": "openai", "model": "m"}, {"engine": "scripted"}],
      "tts": [{"engine": "scripted"}],
      "tools": [{"name": "charge", "description": "Charges a card",
                 "parameters": {"type": "object", "properties": {"card": {"type": "string"}}},
                 "http": {"method": "GET"}}]})");
    definition["tools"][0]["http"]["url"] = tool_.url() + "/charge/{card}";
    return definition.dump();
  }
  std::string Metrics() {
    std::string metrics;
    http::Client client;
    for (const std::string& service : services_) {
      http::Call call;
      call.url = "http://" + cluster_->AdminAddress(service) + "/metrics";
      call.reach = http::Reach::kLoopbackToo;
      const auto reply = client.Fetch(call);
      EXPECT_TRUE(reply.ok()) << service << ": " << reply.status();
      if (reply.ok()) metrics += reply->body;
    }
    return metrics;
  }
  std::string Spans() const {
    std::string spans;
    for (const Collector::Seen& seen : collector_.seen()) spans += seen.span.ShortDebugString();
    return spans;
  }

  const std::vector<std::string> spoken_ = Numbers(1);
  const std::vector<std::string> typed_ = Numbers(2);
  const std::string folder_ = ::testing::TempDir() + "/planted-" + std::to_string(getpid());
  const Collector collector_;
  const Quoting provider_;
  const Quoting tool_;
  std::vector<std::string> services_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(PlantedNumbersTest, LeaveNoTraceOnceTheSessionHasEnded) {
  Api api(*cluster_);
  PARLEY_ASSERT_OK(api.Register(Definition()));
  const auto session = api.Call("POST", "/api/sessions", {{"agent", "cashier"}});
  ASSERT_TRUE(session.ok()) << session.status();
  caller::CallerOptions how;
  how.token = (*session)["participantToken"].get<std::string>();
  how.media_url = (*session)["mediaUrl"].get<std::string>();
  how.record = false;
  auto caller = caller::Caller::Connect(how);
  ASSERT_TRUE(caller.ok()) << caller.status();
  PARLEY_ASSERT_OK((*caller)->WaitForAgent(absl::Seconds(20)).status());

  std::string said;  // by the agent
  const auto type = [&](const std::string& text) {
    const int64_t at_us = (*caller)->NowMicros();
    PARLEY_ASSERT_OK((*caller)->SendText(text));
    const auto answer = (*caller)->WaitForTranscript(true, at_us, kAnswer);
    ASSERT_TRUE(answer.ok()) << answer.status();
    said += answer->text;
  };
  for (const std::string& text : Turns(typed_)) type(text);
  std::string heard;
  for (size_t turn = 0; turn < Turns(spoken_).size(); ++turn) {
    const int64_t at_us = (*caller)->NowMicros();
    PARLEY_ASSERT_OK((*caller)->Play(Humming(), kSpeechRateHz));
    const auto final = (*caller)->WaitForTranscript(false, at_us, kAnswer);
    ASSERT_TRUE(final.ok()) << final.status();
    heard += final->text;
    const auto answer = (*caller)->WaitForTranscript(true, at_us, kAnswer);
    ASSERT_TRUE(answer.ok()) << answer.status();
    said += answer->text;
  }
  type("charge it");
  EXPECT_EQ(CountIn(heard, spoken_), static_cast<int>(kNumbers)) << "they were not all heard";
  EXPECT_GT(CountIn(said, typed_), 0) << "none was spoken";
  EXPECT_GT(provider_.asked(), 0);
  EXPECT_GT(tool_.asked(), 0);
  (*caller)->HangUp();
  ASSERT_TRUE(Eventually(
      [&] {
        const auto job = api.Job((*session)["dispatchId"].get<std::string>());
        return job.ok() && job->value("state", "") == "SUCCEEDED";
      },
      absl::Seconds(20)));
  static_cast<void>(collector_.Named("job"));  // which ends with it: what was traced has come

  redis::Config where;
  where.address = cluster_->Redis().address();
  redis::Pool pool(where, log::Logger());
  std::vector<std::string> all = spoken_;
  all.insert(all.end(), typed_.begin(), typed_.end());
  all.emplace_back(kTool);
  ExpectNone(EverythingIn(pool), all, "Redis");
  const std::string metrics = Metrics();
  EXPECT_GT(metrics.size(), 10'000u);
  ExpectNone(metrics, all, "metrics");
  const std::string spans = Spans();
  EXPECT_GT(spans.size(), 1'000u);
  ExpectNone(spans, all, "traces");
  const std::string logs = Files(cluster_->work_dir());
  EXPECT_GT(logs.size(), 1'000u);
  ExpectNone(logs, all, "logs and other files");
  // The search finds what is there.
  ASSERT_TRUE(pool.Command({"HSET", "planted", "card", "card " + spoken_[0]}).ok());
  EXPECT_EQ(CountIn(EverythingIn(pool), all), 1);
  if (HasFailure()) return;
  std::cout << all.size() << " numbers: none in " << logs.size() << " bytes of logs, "
            << spans.size() << " of traces, " << metrics.size() << " of metrics, nor in Redis\n";
}

}  // namespace
}  // namespace parley::testing
