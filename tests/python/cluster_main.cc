// parley-test-cluster: starts a cluster of real processes, prints where its services are as one
// JSON line, and runs until its standard input closes. What tests in other languages run against.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "testing/cluster.h"

int main(int argc, char** argv) {
  parley::testing::ClusterOptions options;
  CLI::App app("A cluster of real processes for tests; ends when standard input closes");
  app.add_option("--agent-servers", options.agent_servers, "How many");
  app.add_option("--work-dir", options.work_dir,
                 "For logs; kept. Default: a temporary folder, removed");
  std::vector<std::string> api_arguments;
  app.add_option("--api-server-argument", api_arguments, "One more argument of the api_server");
  std::vector<std::string> room_arguments;
  app.add_option("--room-server-argument", room_arguments, "One more argument of the room_server");
  CLI11_PARSE(app, argc, argv);
  options.agent_arguments = {"--tools-allow-loopback"};
  options.extra_arguments["api-server"] = api_arguments;
  options.extra_arguments["api-server"].push_back("--demo");
  options.extra_arguments["room-server"] = room_arguments;
  options.extra_arguments["agent-registry"] = {"--tools-allow-loopback"};
  const auto cluster = parley::testing::Cluster::Start(options);
  if (!cluster.ok()) {
    fmt::print(stderr, "parley-test-cluster: {}\n", parley::Message(cluster.status()));
    return 1;
  }
  nlohmann::json where;
  for (const std::string& service : options.services) where[service] = (*cluster)->Address(service);
  fmt::print("{}\n", where.dump());
  std::fflush(stdout);
  char ignored[256];
  while (read(STDIN_FILENO, ignored, sizeof ignored) > 0) {
  }
  return 0;
}
