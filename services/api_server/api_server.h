#pragma once
// The HTTP/JSON edge: agents, sessions, what runs, tokens, speech, models. Stateless; everything is
// asked of the other services over gRPC, with the caller's own token where grants matter.
#include <parley/dispatch/v1/dispatch.grpc.pb.h>
#include <parley/llm/v1/llm.grpc.pb.h>
#include <parley/registry/v1/registry.grpc.pb.h>
#include <parley/room/v1/room.grpc.pb.h>
#include <parley/speech/v1/speech.grpc.pb.h>
#include <parley/speech/v1/usage.grpc.pb.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "service/service.h"

namespace parley {

struct ApiServerConfig {
  service::CommonConfig common;
  std::vector<std::string> http_ports = {
      "8080", "7880"};           // the same routes; 7880 is where LiveKit clients look
  std::string http_certificate;  // PEM chain; empty = plain HTTP
  std::string http_key;          // its key
  std::string registry_address = "127.0.0.1:7101";
  std::string dispatch_address = "127.0.0.1:7100";
  std::string rooms_address = "127.0.0.1:7105";
  std::string stt_address = "127.0.0.1:7102";
  std::string tts_address = "127.0.0.1:7103";
  std::string llm_address = "127.0.0.1:7104";
  // What clients connect to; default ws://<address>:<last http port>, wss:// with a certificate.
  std::string public_url;
  // Of the default 8 threads of the executor: the rest stays with tokens, sessions and LiveKit's.
  int v1_requests = 5;
  absl::Duration token_ttl = absl::Minutes(15);
  // Jobs at once of one LiveKit worker, which itself says only its load.
  int livekit_worker_slots = 25;
  // connection-details without a token; * at an entry's end stands for any rest:
  std::vector<std::string> open_agents;      // may name these; empty = none without a token
  std::vector<std::string> open_origins;     // from these origins; empty = any
  std::vector<std::string> open_sandboxes;   // with one of these in X-Sandbox-ID; empty = not asked
  std::vector<std::string> open_rooms;       // may name these rooms; others are invented
  std::vector<std::string> open_identities;  // … identities; others are invented
  std::vector<std::string> open_attributes;  // … keys of participant attributes
  int token_rate_per_address = 120;          // a minute, without a token; 0 = any number
  int token_rate_per_key = 1200;             // a minute, of an API key or a sandbox; 0 = any number
  bool trust_forwarded_for = false;          // a proxy of ours sets X-Forwarded-For
  std::string console_dir;                   // of the console page; "": beside the program
  bool demo = false;  // serve /demo/room-rate/{room}, which examples/front-desk.yaml calls
  // Our agents as workers of other LiveKit servers: files as attach_config.h has them.
  std::vector<std::string> attach_files;

  void Bind(config::Table& table);
};

namespace api_server {

// The other services, and what every route needs. Thread-safe.
struct Backend {
  Backend(const ApiServerConfig& config, service::Context& context);

  const ApiServerConfig& config;
  service::Context& context;
  std::unique_ptr<registry::v1::AgentRegistryService::Stub> registry;
  std::unique_ptr<dispatch::v1::DispatchService::Stub> dispatch;
  std::unique_ptr<room::v1::RoomService::Stub> rooms;
  std::unique_ptr<speech::v1::SpeechToTextService::Stub> stt;
  std::unique_ptr<speech::v1::TextToSpeechService::Stub> tts;
  std::unique_ptr<llm::v1::LanguageModelService::Stub> llm;
  // Of the gateways: each adds up for all, and knows its own caps.
  std::map<std::string, std::unique_ptr<speech::v1::UsageService::Stub>> usage;  // stt, tts, llm
  std::atomic<int> v1_under_way = 0;  // requests to /v1 that hold a thread
};

// Serves until stopped. `started` gets the ports of Config::http_ports as bound, before readiness.
int Run(const ApiServerConfig& config, service::Context& context);

}  // namespace api_server
}  // namespace parley
