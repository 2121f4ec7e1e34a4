#pragma once
// Calls into a cluster of real processes: register an agent over HTTP, call it, ask it questions by
// voice.
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "caller/caller.h"
#include "http/client.h"
#include "testing/cluster.h"

namespace parley::testing {

// What a person with the development key pair does over HTTP. Blocking; one thread at a time.
class Api {
 public:
  explicit Api(const Cluster& cluster) : Api("http://" + cluster.Address("api-server")) {}
  explicit Api(std::string base) : base_(std::move(base)) {}  // "http://host:port"

  // A 2xx answer's JSON; anything else is an error with the answer's text.
  absl::StatusOr<nlohmann::json> Call(const std::string& method, const std::string& path,
                                      const nlohmann::json& body = nullptr);
  // The definition in `path` with every "127.0.0.1:8080" pointing at this cluster's api_server.
  absl::Status RegisterFile(const std::string& path);
  absl::Status Register(const std::string& definition);
  // A session with `agent`, and its caller, connected; blocks until the agent hears and is heard.
  absl::StatusOr<std::unique_ptr<caller::Caller>> Call(const std::string& agent);
  // Speech of the voice that the recogniser understands best; kept, since the same words come
  // often.
  absl::StatusOr<std::vector<int16_t>> Speech(const std::string& text);
  absl::StatusOr<nlohmann::json> Job(const std::string& dispatch_id);  // its only, or newest, job
  // Hands the dispatch's job to whoever is free. OK once another worker runs it.
  absl::Status Migrate(const std::string& dispatch_id, absl::Duration timeout);
  const std::string& base() const { return base_; }

 private:
  const std::string base_;
  http::Client client_;
  std::map<std::string, std::vector<int16_t>> speech_;
};

inline constexpr int kSpeechRateHz = 24'000;

// One call of the front-desk agent.
class FrontDeskCall {
 public:
  // Blocks until the agent has greeted.
  static absl::StatusOr<std::unique_ptr<FrontDeskCall>> Place(
      Api& api, const std::string& restart_policy = "ON_FAILURE");

  // Asks for the price of a room type by voice; OK when the agent's spoken answer names `price`.
  absl::Status Ask(const std::string& room_type, const std::string& price,
                   absl::Duration timeout = absl::Seconds(30));
  // Blocks until an agent is in the room that was not there at `after_us`; when it came.
  absl::StatusOr<int64_t> WaitForNewAgent(int64_t after_us, absl::Duration timeout);

  caller::Caller& caller() { return *caller_; }
  const std::string& dispatch_id() const { return dispatch_id_; }
  const std::string& room() const { return room_; }

 private:
  explicit FrontDeskCall(Api& api) : api_(api) {}
  Api& api_;
  std::string room_;
  std::string dispatch_id_;
  std::unique_ptr<caller::Caller> caller_;
};

// A call by chat whose agent remembers: the caller tells it a word and later asks for it, so that
// an answer shows that nothing of the call was lost.
class MemoryCall {
 public:
  // What the scripted engines of all three gateways, and the registry, are given first.
  static constexpr char kScript[] = R"({
    "llm": {"delay": "20ms",
            "answers": [{"when": "before", "text": "You said {earlier}."}, {"text": "Noted."}]},
    "tts": {"delay": "30ms", "per_character": "10ms"}})";
  static constexpr char kAgent[] = R"({"id": "memory", "instructions": "Remember.",
    "stt": [{"engine": "scripted"}], "llm": [{"engine": "scripted"}],
    "tts": [{"engine": "scripted"}]})";

  // Blocks until the agent hears and is heard.
  static absl::StatusOr<std::unique_ptr<MemoryCall>> Place(Api& api, const std::string& word);
  absl::Status Tell();
  // OK when the agent names the word. Asking is itself something said, so tells it anew.
  absl::Status Ask();
  // How long no agent was there whom the caller could hear: one out, the next one audible.
  std::vector<double> GapsMs() const;

  // Agents that came into the room since `after_us` of the caller's clock.
  int NewAgents(int64_t after_us) const;

  caller::Caller& caller() { return *caller_; }
  const std::string& dispatch_id() const { return dispatch_id_; }

 private:
  explicit MemoryCall(std::string word) : word_(std::move(word)) {}
  absl::Status Say(const std::string& text, const std::string& expected);

  const std::string word_;
  std::string dispatch_id_;
  std::unique_ptr<caller::Caller> caller_;
};

// From an agent server's log: for each job it took over, how long nobody listened, by both servers'
// clocks.
std::vector<double> HandOverPausesMs(const std::string& log);

}  // namespace parley::testing
