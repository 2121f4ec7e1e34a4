#pragma once
// A HorizontalPodAutoscaler (autoscaling/v2), read from its manifest and decided as Kubernetes
// documents it: desired = ceil(replicas × value / target) within a tolerance of 0.1, the highest of
// its metrics, stabilisation windows, then the policies of its behavior. Pure: time is passed in.
#include <absl/status/statusor.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace parley::autoscale {

struct Metric {
  std::string name;                            // of an External metric
  std::map<std::string, std::string> matches;  // its selector's matchLabels
  bool per_replica = true;                     // AverageValue; false: Value
  double target = 0;
};

struct Policy {
  bool percent = false;  // else pods
  double value = 0;
  double period_s = 0;
};

struct Rules {
  double window_s = 0;
  enum class Select { kMax, kMin, kDisabled } select = Select::kMax;
  std::vector<Policy> policies;
};

struct Manifest {
  std::string name;
  int min = 1;
  int max = 1;
  std::vector<Metric>
      metrics;  // External ones; Resource metrics are left out: `others` counts them
  int others = 0;
  Rules up;    // Kubernetes' defaults where the manifest is silent
  Rules down;  // likewise
};

// All HorizontalPodAutoscalers of a file of manifests (at most 1 MiB); other kinds are skipped.
//   InvalidArgument  not YAML, or a field that cannot be used, by name
absl::StatusOr<std::vector<Manifest>> ParseManifests(std::string_view yaml);

// "1", "37.5", "37500m", "2k": a Kubernetes quantity.
std::optional<double> ParseQuantity(std::string_view text);

// Decides for one target, as its controller would at each sync. Not thread-safe.
class Autoscaler {
 public:
  explicit Autoscaler(Manifest manifest) : manifest_(std::move(manifest)) {}

  const Manifest& manifest() const { return manifest_; }
  // How many replicas there should be at `now_s` (rising), with `current` there and the metrics'
  // values in the manifest's order; nullopt = not known: then it never scales down.
  int Decide(double now_s, int current, const std::vector<std::optional<double>>& values);

 private:
  struct Recommendation {
    double at_s;
    int replicas;
  };
  struct Change {
    double at_s;
    int replicas;
  };
  int Proposed(int current, const std::vector<std::optional<double>>& values) const;
  int Stabilised(double now_s, int current, int proposed);
  int UpLimit(double now_s, int current) const;
  int DownLimit(double now_s, int current) const;

  Manifest manifest_;
  std::vector<Recommendation> recommendations_;  // within the longer window
  std::vector<Change> added_;                    // within the longest period
  std::vector<Change> removed_;
};

}  // namespace parley::autoscale
