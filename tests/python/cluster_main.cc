// parley-test-cluster: starts a cluster of real processes, prints where its services are as one
// JSON line, and runs until its standard input closes. What tests in other languages run against.
// Lines on its standard input: "kill NAME" and "restart NAME" of a service or of redis, "freeze
// NAME" and "thaw NAME" of a service, each answered by "ok" or by what went wrong.
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "testing/cluster.h"

namespace {

absl::Status Do(parley::testing::Cluster& cluster, const std::string& verb,
                const std::string& name) {
  if (name == "redis") {
    if (verb == "restart") return cluster.Redis().Restart();
    cluster.Redis().Kill();
    return absl::OkStatus();
  }
  if (verb == "restart") return cluster.Restart(name);
  cluster.Service(name).Signal(verb == "freeze" ? SIGSTOP : verb == "thaw" ? SIGCONT : SIGKILL);
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  parley::testing::ClusterOptions options;
  CLI::App app("A cluster of real processes for tests; ends when standard input closes");
  app.add_option("--agent-servers", options.agent_servers, "How many");
  app.add_option("--work-dir", options.work_dir,
                 "For logs; kept. Default: a temporary folder, removed");
  std::vector<std::string> api_arguments, more;
  app.add_option("--api-server-argument", api_arguments, "One more argument of the api_server");
  app.add_option("--argument", more, "NAME:ARGUMENT: one more argument of a service");
  app.add_option("--services", options.services, "Only these")->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  options.agent_arguments = {"--tools-allow-loopback"};
  options.extra_arguments["api-server"] = api_arguments;
  options.extra_arguments["api-server"].push_back("--demo");
  options.extra_arguments["agent-registry"] = {"--tools-allow-loopback"};
  for (const std::string& one : more) {
    const size_t colon = std::min(one.find(':'), one.size() - 1);
    options.extra_arguments[one.substr(0, colon)].push_back(one.substr(colon + 1));
  }
  const auto cluster = parley::testing::Cluster::Start(options);
  if (!cluster.ok()) {
    fmt::print(stderr, "parley-test-cluster: {}\n", parley::Message(cluster.status()));
    return 1;
  }
  nlohmann::json where;
  for (const std::string& service : options.services) where[service] = (*cluster)->Address(service);
  fmt::print("{}\n", where.dump());
  std::fflush(stdout);
  for (std::string verb, name; std::cin >> verb >> name;) {
    const bool of_redis = verb == "kill" || verb == "restart";
    const bool known =
        name == "redis" ? of_redis
                        : (of_redis || verb == "freeze" || verb == "thaw") &&
                              std::ranges::find(options.services, name) != options.services.end();
    const absl::Status status = known ? Do(**cluster, verb, name)
                                      : parley::InvalidArgument("no such line: {} {}", verb, name);
    fmt::print("{}\n", status.ok() ? "ok" : parley::Message(status));
    std::fflush(stdout);
  }
  return 0;
}
