#include "dispatch_broker/pod_costs.h"

#include <fmt/format.h>

#include <bit>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "base/status.h"
#include "base/strings.h"
#include "dispatch_broker/broker.h"
#include "http/authority.h"

namespace parley::dispatch_broker {
namespace {

constexpr absl::Duration kPatchTimeout = absl::Seconds(5);
constexpr size_t kMaxName = 253;

// Short files of a mounted service account; "" when there is none. Read anew each time: tokens
// are replaced while we run.
std::string ReadCredential(const std::string& folder, const char* name) {
  std::ifstream file(folder + "/" + name);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return std::string(Trim(text));
}

// A pod's name is its host name. Workers say it: nothing else may get into the path.
bool IsPodName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName && name.front() != '.' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-.") == std::string_view::npos;
}

std::string ApiOfCluster() {
  const char* host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (host == nullptr || port == nullptr) return {};
  const bool v6 = std::string_view(host).find(':') != std::string_view::npos;
  return fmt::format("https://{}{}{}:{}", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PodCosts>> PodCosts::Create(PodCostOptions options, Broker& broker) {
  if (options.api.empty()) options.api = ApiOfCluster();
  if (options.api.empty())
    return FailedPrecondition(
        "kubernetes.pod_costs: this is no pod (KUBERNETES_SERVICE_HOST is not set); name the API "
        "with kubernetes.api");
  std::string pod_namespace = ReadCredential(options.credentials, "namespace");
  if (!IsPodName(pod_namespace))
    return FailedPrecondition("kubernetes.pod_costs: {}/namespace names no namespace",
                              options.credentials);
  std::error_code error;
  const std::string ca = options.credentials + "/ca.crt";
  if (std::filesystem::exists(ca, error)) http::SetAuthority(options.api, ca);
  return std::unique_ptr<PodCosts>(
      new PodCosts(std::move(options), std::move(pod_namespace), broker));
}

PodCosts::~PodCosts() { Stop(); }

void PodCosts::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void PodCosts::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

int PodCosts::CostOf(size_t jobs) { return 100 * static_cast<int>(std::bit_width(jobs)); }

void PodCosts::Loop() {
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (!stopping_) wake_.WaitFor(&mutex_, options_.interval);
      if (stopping_) return;
    }
    Round();
  }
}

void PodCosts::Round() {
  std::set<std::string> here;
  for (const std::string& pool : broker_.KnownPools()) {
    const auto workers = broker_.store().ListWorkers(pool);
    if (!workers.ok()) return;  // the store is away: what was told stays
    for (const job::Worker& worker : *workers) {
      if (!IsPodName(worker.hostname) || broker_.workers().Find(worker.id) == nullptr) continue;
      here.insert(worker.hostname);
      const int cost = CostOf(worker.job_ids.size());
      const auto told = told_.find(worker.hostname);
      if (told != told_.end() && told->second == cost) continue;
      if (!Tell(worker.hostname, cost)) return;
      told_[worker.hostname] = cost;
    }
  }
  std::erase_if(told_, [&](const auto& entry) { return !here.contains(entry.first); });
}

// False when the API does not answer, or refuses: then the rest of the round waits, too.
bool PodCosts::Tell(const std::string& pod, int cost) {
  http::Call call;
  call.method = "PATCH";
  call.url = fmt::format("{}/api/v1/namespaces/{}/pods/{}", options_.api, namespace_, pod);
  call.headers = {{"content-type", "application/merge-patch+json"}};
  if (const std::string token = ReadCredential(options_.credentials, "token"); !token.empty())
    call.headers.emplace_back("authorization", "Bearer " + token);
  call.body = fmt::format(
      R"({{"metadata":{{"annotations":{{"controller.kubernetes.io/pod-deletion-cost":"{}"}}}}}})",
      cost);
  call.timeout = kPatchTimeout;
  call.connect_timeout = kPatchTimeout;
  call.reach = http::Reach::kAny;
  const auto reply = http_.Fetch(call);
  // 404: a host that is no pod of this namespace, or a pod that has just gone. Nothing to do.
  const bool taken = reply.ok() && (reply->status / 100 == 2 || reply->status == 404);
  if (taken != failing_) return taken;
  failing_ = !taken;
  const log::Logger& log = broker_.context().log();
  if (taken)
    log.Info("pod costs are taken again");
  else if (reply.ok())
    log.Warn("Kubernetes refuses a pod's cost", {{"pod", pod}, {"status", reply->status}});
  else
    log.Warn("Kubernetes does not answer", {{"error", Message(reply.status())}});
  return taken;
}

}  // namespace parley::dispatch_broker
