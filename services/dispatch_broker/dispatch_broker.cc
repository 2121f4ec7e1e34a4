#include "dispatch_broker/dispatch_broker.h"

#include <utility>

#include "base/ids.h"
#include "base/ip.h"
#include "base/status.h"
#include "dispatch_broker/broker.h"
#include "dispatch_broker/dispatch_service.h"
#include "dispatch_broker/fencer.h"
#include "dispatch_broker/metrics.h"
#include "dispatch_broker/pod_costs.h"
#include "dispatch_broker/webhooks.h"
#include "dispatch_broker/worker_service.h"
#include "dispatch_broker/worker_session.h"
#include "dispatch_broker/worker_table.h"
#include "job_redis/journal.h"
#include "job_redis/redis_job_store.h"
#include "registry_redis/store.h"

namespace parley {

DispatchBrokerConfig::DispatchBrokerConfig() {
  // A create is answered within half a second, whatever Redis does.
  redis.connect_timeout = absl::Milliseconds(300);
  redis.command_timeout = absl::Milliseconds(400);
  redis.connections = 8;
}

void DispatchBrokerConfig::Bind(config::Table& table) {
  common.Bind(table, 7100);
  redis.Bind(table);
  table.Duration("broker.tick", &tick, absl::Milliseconds(10), absl::Seconds(5),
                 "How often deadlines and leases are looked at; matching does not wait for it");
  table.Duration("broker.renew_batch", &renew_batch, absl::Milliseconds(1), absl::Seconds(1),
                 "Heartbeats that arrive within it are stored together");
  table.Duration("broker.room_token_ttl", &room_token_ttl, absl::Minutes(1), absl::Hours(48),
                 "How long the token that admits an agent into its room is valid");
  table.List("webhooks.urls", &webhook_urls,
             "URLs that are told, signed, when dispatches are made and jobs start and end");
  table.Bool(
      "webhooks.metadata", &webhook_metadata,
      "Tell webhooks the metadata and attributes of dispatches, too, not only ids and states");
  table.Choice("broker.placement", &placement, {"spread", "pack"},
               "Of two workers with free slots: spread takes the emptier one, pack the fuller one");
  table.Text(
      "broker.peer_address", &peer_address,
      "host:port, or host with its port, by which other brokers reach this one (logs of jobs "
      "whose agent server is connected here); default is its address and port");
  table.Text("broker.journal_dir", &journal_dir,
             "Folder of this broker's own: what it acknowledged in the last minute is on its disk "
             "too, so that it can be put back after Redis and broker have both failed");
  table.Choice(
      "broker.durability", &durability, {"redis", "replica"},
      "What a create or a stop request is acknowledged on: redis, as safe as that one syncs "
      "its file; replica, a replica has confirmed it as well");
  table.Int("broker.pool_max_jobs", &pool_max_jobs, 0, 10'000'000,
            "Jobs that workers of one pool hold at once; more wait; 0: as many as there are slots");
  table.Int("broker.pool_max_queued", &pool_max_queued, 0, 10'000'000,
            "Jobs that may wait in one pool; more are refused (OVER_QUOTA); 0: any number");
  table.Bool("kubernetes.pod_costs", &pod_costs,
             "Keep the deletion cost of agent servers' pods in step with their jobs, so that idle "
             "ones go first");
  table.Text("kubernetes.api", &kubernetes_api,
             "URL of Kubernetes' API; default: that of the cluster this runs in");
  table.Text("kubernetes.credentials", &kubernetes_credentials,
             "Folder with the service account's token, namespace and ca.crt");
  table.Duration("kubernetes.interval", &pod_costs_interval, absl::Milliseconds(100),
                 absl::Minutes(1), "How often changed costs are told");
}

namespace dispatch_broker {
namespace {
// Longer than a request of a webhook may take: a broker that waits for one keeps its place.
constexpr absl::Duration kWebhookLease = absl::Seconds(15);
}  // namespace

int Run(const DispatchBrokerConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started) {
  DispatchBrokerMetrics metrics(context.registry());
  redis::Pool redis(config.redis, context.log());
  registry_redis::RedisAgentStore agents(redis);
  WorkerTable workers;
  Broker* broker_or_null = nullptr;  // nothing calls back before its first use
  std::unique_ptr<job::Journal> journal;
  if (!config.journal_dir.empty()) {
    auto opened = job::Journal::Open(config.journal_dir);
    if (!opened.ok()) {
      context.log().Error("journal", {{"error", Message(opened.status())}});
      return 1;
    }
    journal = *std::move(opened);
  }
  const std::string broker_id = "B" + RandomBase62(12);
  job::RedisJobStore store(
      redis, broker_id,
      {[&workers](const job::Message& message) { workers.Deliver(message); },
       [&broker_or_null](const std::string& pool) { broker_or_null->OnRecovering(pool); }},
      {journal.get(), config.durability == "replica"});
  Broker broker(config, context, store, agents, workers, metrics);
  broker_or_null = &broker;
  std::unique_ptr<PodCosts> pod_costs;
  if (config.pod_costs) {
    auto made = PodCosts::Create(
        {config.kubernetes_api, config.kubernetes_credentials, config.pod_costs_interval}, broker);
    if (!made.ok()) return service::FailStart("dispatch-broker", made.status());
    pod_costs = *std::move(made);
  }
  DispatchServiceImpl dispatch_service(broker);
  WorkerServiceImpl worker_service(broker);
  Fencer fencer(store, redis, context, metrics, [&broker] { return broker.KnownPools(); });
  broker.Start();
  fencer.Start();
  if (pod_costs) pod_costs->Start();
  job::WebhookCursors cursors(redis, broker_id, kWebhookLease);
  WebhookOptions webhook_options;
  webhook_options.urls = config.webhook_urls;
  webhook_options.metadata = config.webhook_metadata;
  const auto webhooks = std::make_shared<Webhooks>(std::move(webhook_options), broker, cursors);
  if (!config.webhook_urls.empty()) broker.AddWatcher(webhooks);
  webhooks->Start();
  service::Context::Hooks hooks;
  hooks.ready = [&broker] { return broker.store_available(); };
  // Streams end with the server; agent servers connect to another broker and keep their jobs.
  hooks.drain = [&workers](absl::Duration) {
    for (const auto& session : workers.All()) {
      session->Close(
          grpc::Status(grpc::StatusCode::UNAVAILABLE, "this broker stops; connect to another one"));
    }
  };
  hooks.started = [&, started = std::move(started)](int grpc_port, int admin_port) {
    broker.SetAddress(ReachableAddress(config.peer_address, config.common.address, grpc_port));
    if (started) started(grpc_port, admin_port);
  };
  const int code = context.Serve({&dispatch_service, &worker_service}, std::move(hooks));
  if (pod_costs) pod_costs->Stop();
  webhooks->Stop();
  fencer.Stop();
  broker.Stop();
  context.executor().Stop();  // what still runs there uses the store
  return code;
}

}  // namespace dispatch_broker
}  // namespace parley
