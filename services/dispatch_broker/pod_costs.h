#pragma once
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <map>
#include <string>
#include <string_view>
#include <thread>

#include "base/mutex.h"
#include "http/client.h"

namespace parley::dispatch_broker {

class Broker;

struct PodCostOptions {
  std::string api;          // of Kubernetes; "" = that of the cluster this runs in
  std::string credentials;  // folder with token, namespace and, for https, ca.crt
  absl::Duration interval = absl::Seconds(5);
};

// Tells Kubernetes which agent servers' pods to take last when it scales down: writes
// controller.kubernetes.io/pod-deletion-cost of the pods whose streams this broker has, by the jobs
// they hold. Only this service account may patch pods; agent servers mount no token. A pod is told
// anew when its cost changes, which is at powers of two of its jobs. A hint: when the API is away,
// nothing but the choice of pods gets worse.
class PodCosts {
 public:
  // Nothing runs before Start. FailedPrecondition: not in a cluster and no `api`; no namespace.
  static absl::StatusOr<std::unique_ptr<PodCosts>> Create(PodCostOptions options, Broker& broker);
  ~PodCosts();  // as Stop()

  void Start();
  void Stop();  // idempotent; waits for the request under way (5 s at most)

  // 0 idle, then 100 more for each doubling: 1 → 100, 2 to 3 → 200, 4 to 7 → 300, …
  static int CostOf(size_t jobs);

 private:
  PodCosts(PodCostOptions options, std::string pod_namespace, Broker& broker)
      : options_(std::move(options)), namespace_(std::move(pod_namespace)), broker_(broker) {}
  void Loop();
  void Round();
  bool Tell(const std::string& pod, int cost);

  const PodCostOptions options_;
  const std::string namespace_;
  Broker& broker_;
  http::Client http_;
  std::map<std::string, int> told_;  // by pod; the loop's thread only
  bool failing_ = false;             // likewise: one line for an outage, not one a pod
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace parley::dispatch_broker
