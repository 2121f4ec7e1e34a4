#pragma once
// The dispatch broker: dispatches, jobs, leases, workers, events, session records. Stateless but
// for the streams it holds: everything else is in Redis, and any replica may do anything.
#include <absl/time/time.h>

#include <functional>
#include <string>
#include <vector>

#include "redis/redis.h"
#include "service/service.h"

namespace parley {

struct DispatchBrokerConfig {
  DispatchBrokerConfig();

  service::CommonConfig common;
  redis::Config redis;
  absl::Duration tick = absl::Milliseconds(250);
  absl::Duration renew_batch = absl::Milliseconds(100);
  absl::Duration room_token_ttl = absl::Hours(12);
  std::string placement = "spread";  // or "pack"
  std::string journal_dir;           // empty: what was acknowledged is remembered in memory only
  std::string durability = "redis";  // or "replica"
  int pool_max_jobs = 0;             // 0 = as many as there are slots
  int pool_max_queued = 1'000'000;
  std::string peer_address;  // by which other brokers reach this one; "" = address:port
  std::vector<std::string> webhook_urls;  // told what happens; see webhooks.h
  bool webhook_metadata = false;
  // Keeps the deletion cost of agent servers' pods in step with their jobs; see pod_costs.h.
  bool pod_costs = false;
  std::string kubernetes_api;  // "" = of the cluster this runs in
  std::string kubernetes_credentials = "/var/run/secrets/kubernetes.io/serviceaccount";
  absl::Duration pod_costs_interval = absl::Seconds(5);

  void Bind(config::Table& table);
};

namespace dispatch_broker {

// Serves until a stop is asked for. The exit code of main. `started` hears the ports (they may be 0
// in the configuration).
int Run(const DispatchBrokerConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started = {});

}  // namespace dispatch_broker
}  // namespace parley
