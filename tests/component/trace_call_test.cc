// A spoken call through a cluster of real processes is one trace: over HTTP, rooms, dispatch, the
// agent server and its job, the gateways, a model's provider and the tool's own server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "base/trace_context.h"
#include "collector.h"
#include "provider.h"
#include "testing/calls.h"
#include "testing/matchers.h"

namespace parley::testing {
namespace {

using ::testing::HasSubstr;
using trace::v1::Span;

// Of which service a span is, and below which one; "": the test's own.
struct Place {
  std::string service;
  std::string parent;
};
const std::map<std::string, Place>& Expected() {
  static const auto* places = new std::map<std::string, Place>{
      {"POST /api/sessions", {"api-server", ""}},
      {"CreateRoom", {"room-server", "POST /api/sessions"}},
      {"CreateDispatch", {"dispatch-broker", "CreateRoom"}},
      {"wait for an agent server", {"dispatch-broker", "CreateDispatch"}},
      {"join room", {"room-server", ""}},
      {"job", {"agent-server", "CreateDispatch"}},
      {"start of the job", {"agent-server", "job"}},
      {"turn", {"agent-server", "job"}},
      {"final transcript", {"stt-gateway", "job"}},
      {"chat", {"llm-gateway", "job"}},
      {"ask a model", {"llm-gateway", "chat"}},
      {"speak", {"tts-gateway", "job"}},
      {"tool", {"agent-server", "job"}},
      {"GET /demo/room-rate/{room}", {"api-server", "tool"}}};
  return *places;
}

// The front desk, asking a provider first that has no answer.
std::string Definition(const std::string& api) {
  std::ifstream file(std::string(std::getenv("PARLEY_SOURCE_DIR")) + "/examples/front-desk.yaml");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  for (const auto& [from, to] :
       {std::pair<std::string, std::string>{"llm: [{", "llm: [{engine: openai, model: m}, {"},
        {"http://127.0.0.1:8080", api}}) {
    const size_t at = text.find(from, text.find("\nid:"));
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
  }
  return text;
}

TEST(TraceCallTest, ACallIsOneTraceThroughEveryServiceToProvidersAndTools) {
  const Collector collector;
  const Provider provider(
      {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
       "Connection: close\r\n\r\n"});
  const std::vector<std::string> flags = {"--trace-endpoint", collector.url()};
  ClusterOptions options;
  for (const std::string& service : options.services) options.extra_arguments[service] = flags;
  options.extra_arguments["llm-gateway"].emplace_back("--llm-openai-base-url");
  options.extra_arguments["llm-gateway"].emplace_back(provider.url());
  options.extra_arguments["api-server"].emplace_back("--demo");  // the tool's server
  options.extra_arguments["agent-registry"].emplace_back("--tools-allow-loopback");
  options.agent_arguments = flags;
  options.agent_arguments.emplace_back("--tools-allow-loopback");
  const auto cluster = Cluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  Api api(**cluster);
  PARLEY_ASSERT_OK(api.Register(Definition(api.base())));

  const TraceContext ours = TraceContext::Root();
  {
    std::unique_ptr<FrontDeskCall> call;
    {
      const TraceScope scope(ours);
      auto placed = FrontDeskCall::Place(api);
      ASSERT_TRUE(placed.ok()) << placed.status() << (*cluster)->AgentServer(0).Log();
      call = *std::move(placed);
    }
    PARLEY_ASSERT_OK(call->Ask("single", "80 euros"));
  }  // hangs up

  std::map<std::string, Collector::Seen> trace;  // by id
  const std::string trace_id(ours.trace_id.begin(), ours.trace_id.end());
  const auto whole = [&] {
    std::set<std::string> names;
    for (const Collector::Seen& one : collector.seen()) {
      if (one.span.trace_id() != trace_id) continue;
      names.insert(one.span.name());
      trace[one.span.span_id()] = one;
    }
    for (const auto& [name, place] : Expected()) {
      if (!names.contains(name)) return false;
    }
    return true;
  };
  EXPECT_TRUE(Eventually(whole, absl::Seconds(20)));

  std::set<std::string> missing;
  for (const auto& [name, place] : Expected()) missing.insert(name);
  std::string refused;  // the span of the model that had no answer
  for (const auto& [id, one] : trace) {
    const Span& span = one.span;
    missing.erase(span.name());
    const auto expected = Expected().find(span.name());
    ASSERT_NE(expected, Expected().end()) << span.name() << " of " << one.service;
    EXPECT_EQ(one.service, expected->second.service) << span.name();
    if (expected->second.parent.empty()) {
      EXPECT_EQ(span.parent_span_id(), std::string(ours.span_id.begin(), ours.span_id.end()));
    } else {
      const auto parent = trace.find(span.parent_span_id());
      ASSERT_NE(parent, trace.end()) << span.name() << " hangs in the air";
      EXPECT_EQ(parent->second.span.name(), expected->second.parent) << span.name();
    }
    EXPECT_LE(span.start_time_unix_nano(), span.end_time_unix_nano()) << span.name();
    if (span.name() == "ask a model" && span.status().code() != 0) refused = id;
  }
  EXPECT_TRUE(missing.empty()) << ::testing::PrintToString(missing);

  // The provider was asked under the trace's name, before the rules answered.
  const std::string asked = provider.asked();
  const size_t at = asked.find("traceparent: ");
  ASSERT_NE(at, std::string::npos) << asked.substr(0, 500) << "\n"
                                   << (*cluster)->Service("llm-gateway").Log();
  const TraceContext sent = TraceContext::Parse(asked.substr(at + 13, 55));
  EXPECT_EQ(sent.trace_id, ours.trace_id);
  EXPECT_TRUE(trace.contains(std::string(sent.span_id.begin(), sent.span_id.end())));
  EXPECT_FALSE(refused.empty());

  // Logs name it, where the job runs and where it was dispatched.
  EXPECT_THAT((*cluster)->AgentServer(0).Log(),
              HasSubstr("\"trace_id\":\"" + ours.TraceId() + "\""));
}

}  // namespace
}  // namespace parley::testing
