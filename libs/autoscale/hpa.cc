#include "autoscale/hpa.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/status.h"

namespace parley::autoscale {
namespace {

constexpr double kTolerance = 0.1;
constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxReplicas = 1'000'000;
constexpr int kMaxDepth = 64;  // of brackets: the parser recurses

absl::StatusOr<double> Number(const YAML::Node& node, std::string_view field, double low,
                              double high) {
  if (!node || !node.IsScalar()) return InvalidArgument("{}: a number is missing", field);
  const auto value = ParseQuantity(node.Scalar());
  if (!value || *value < low || *value > high)
    return InvalidArgument("{}: \"{}\" is not a number from {} to {}", field, node.Scalar(), low,
                           high);
  return *value;
}

std::string Text(const YAML::Node& node) {
  return node && node.IsScalar() ? node.Scalar() : std::string();
}

absl::StatusOr<Rules> ReadRules(const YAML::Node& node, std::string_view field, Rules rules) {
  if (!node || node.IsNull()) return rules;
  if (!node.IsMap()) return InvalidArgument("{}: not a map", field);
  if (const YAML::Node window = node["stabilizationWindowSeconds"]) {
    PARLEY_ASSIGN_OR_RETURN(rules.window_s, Number(window, field, 0, 3600));
  }
  const std::string select = Text(node["selectPolicy"]);
  if (select == "Min") rules.select = Rules::Select::kMin;
  if (select == "Disabled") rules.select = Rules::Select::kDisabled;
  const YAML::Node policies = node["policies"];
  if (!policies) return rules;
  if (!policies.IsSequence()) return InvalidArgument("{}.policies: not a list", field);
  rules.policies.clear();
  for (const YAML::Node& entry : policies) {
    if (!entry.IsMap()) return InvalidArgument("{}.policies: not a map", field);
    Policy policy;
    const std::string type = Text(entry["type"]);
    if (type != "Pods" && type != "Percent")
      return InvalidArgument("{}.policies: type must be Pods or Percent, not \"{}\"", field, type);
    policy.percent = type == "Percent";
    PARLEY_ASSIGN_OR_RETURN(policy.value, Number(entry["value"], field, 1, kMaxReplicas));
    PARLEY_ASSIGN_OR_RETURN(policy.period_s, Number(entry["periodSeconds"], field, 1, 1800));
    rules.policies.push_back(policy);
  }
  return rules;
}

absl::Status ReadMetric(const YAML::Node& node, Manifest& manifest) {
  if (!node.IsMap()) return InvalidArgument("metrics: not a map");
  if (Text(node["type"]) != "External") {
    ++manifest.others;
    return absl::OkStatus();
  }
  const YAML::Node external = node["external"];
  if (!external || !external.IsMap() || !external["metric"] || !external["metric"].IsMap() ||
      !external["target"] || !external["target"].IsMap()) {
    return InvalidArgument("metrics: an External one needs external.metric and external.target");
  }
  Metric metric;
  metric.name = Text(external["metric"]["name"]);
  if (metric.name.empty()) return InvalidArgument("metrics: a metric without a name");
  if (const YAML::Node selector = external["metric"]["selector"]; selector && selector.IsMap()) {
    if (const YAML::Node labels = selector["matchLabels"]; labels && labels.IsMap()) {
      for (const auto& label : labels) metric.matches[Text(label.first)] = Text(label.second);
    }
  }
  const YAML::Node target = external["target"];
  metric.per_replica = Text(target["type"]) == "AverageValue";
  PARLEY_ASSIGN_OR_RETURN(
      metric.target,
      Number(target[metric.per_replica ? "averageValue" : "value"], metric.name, 1e-9, 1e12));
  manifest.metrics.push_back(std::move(metric));
  return absl::OkStatus();
}

absl::StatusOr<Manifest> ReadManifest(const YAML::Node& root) {
  Manifest manifest;
  if (const YAML::Node metadata = root["metadata"]; metadata && metadata.IsMap())
    manifest.name = Text(metadata["name"]);
  if (Text(root["apiVersion"]) != "autoscaling/v2")
    return InvalidArgument("{}: apiVersion must be autoscaling/v2", manifest.name);
  const YAML::Node spec = root["spec"];
  if (!spec || !spec.IsMap()) return InvalidArgument("{}: spec is missing", manifest.name);
  if (const YAML::Node low = spec["minReplicas"]) {
    PARLEY_ASSIGN_OR_RETURN(const double value, Number(low, "minReplicas", 1, kMaxReplicas));
    manifest.min = static_cast<int>(value);
  }
  PARLEY_ASSIGN_OR_RETURN(const double high,
                          Number(spec["maxReplicas"], "maxReplicas", 1, kMaxReplicas));
  manifest.max = static_cast<int>(high);
  if (manifest.max < manifest.min)
    return InvalidArgument("{}: maxReplicas is below minReplicas", manifest.name);
  if (const YAML::Node metrics = spec["metrics"]; metrics && metrics.IsSequence()) {
    for (const YAML::Node& metric : metrics) PARLEY_RETURN_IF_ERROR(ReadMetric(metric, manifest));
  }
  const Rules up{0, Rules::Select::kMax, {{true, 100, 15}, {false, 4, 15}}};
  const Rules down{300, Rules::Select::kMax, {{true, 100, 15}}};
  const YAML::Node behavior = spec["behavior"];
  if (behavior && !behavior.IsMap())
    return InvalidArgument("{}: behavior: not a map", manifest.name);
  const YAML::Node none;
  PARLEY_ASSIGN_OR_RETURN(manifest.up,
                          ReadRules(behavior ? behavior["scaleUp"] : none, "scaleUp", up));
  PARLEY_ASSIGN_OR_RETURN(manifest.down,
                          ReadRules(behavior ? behavior["scaleDown"] : none, "scaleDown", down));
  return manifest;
}

// Split at lines that begin with "---": YAML::LoadAll eats all memory on some texts that are no
// YAML.
std::vector<std::string> Documents(std::string_view yaml) {
  std::vector<std::string> documents(1);
  while (!yaml.empty()) {
    const size_t length = std::min(yaml.find('\n'), yaml.size() - 1) + 1;
    if (yaml.starts_with("---")) documents.emplace_back();
    documents.back() += yaml.substr(0, length);
    yaml.remove_prefix(length);
  }
  return documents;
}

// What was changed less than `period_s` ago.
template <typename Changes>
int Within(const Changes& changes, double now_s, double period_s) {
  int sum = 0;
  for (const auto& change : changes)
    if (change.at_s > now_s - period_s) sum += change.replicas;
  return sum;
}

}  // namespace

std::optional<double> ParseQuantity(std::string_view text) {
  double factor = 1;
  static const std::map<char, double> kSuffixes = {{'m', 1e-3}, {'k', 1e3}, {'M', 1e6}, {'G', 1e9}};
  if (!text.empty()) {
    if (const auto it = kSuffixes.find(text.back()); it != kSuffixes.end()) {
      factor = it->second;
      text.remove_suffix(1);
    }
  }
  if (text.empty() || text.find_first_not_of("0123456789.") != std::string_view::npos)
    return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value * factor;
}

absl::StatusOr<std::vector<Manifest>> ParseManifests(std::string_view yaml) {
  if (yaml.size() > kMaxBytes) return InvalidArgument("more than 1 MiB of manifests");
  // Deep nesting, by brackets or by indentation, would exhaust the parser's stack.
  if (std::ranges::count_if(yaml, [](char c) { return c == '[' || c == '{'; }) > 10'000)
    return InvalidArgument("too many brackets");
  int depth = 0;
  for (const char c : yaml) {
    depth += c == '[' || c == '{' ? 1 : 0;
    depth -= c == ']' || c == '}' ? 1 : 0;
    if (depth > kMaxDepth) return InvalidArgument("nested too deeply");
  }
  std::vector<Manifest> manifests;
  try {
    for (const std::string& document : Documents(yaml)) {
      const YAML::Node root = YAML::Load(document);
      if (!root.IsMap() || Text(root["kind"]) != "HorizontalPodAutoscaler") continue;
      PARLEY_ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(root));
      manifests.push_back(std::move(manifest));
    }
  } catch (const YAML::Exception& error) {
    return InvalidArgument("not YAML: {}", error.what());
  }
  return manifests;
}

int Autoscaler::Proposed(int current, const std::vector<std::optional<double>>& values) const {
  int highest = -1;
  bool unknown = false;
  for (size_t i = 0; i < manifest_.metrics.size(); ++i) {
    const Metric& metric = manifest_.metrics[i];
    if (i >= values.size() || !values[i]) {
      unknown = true;
      continue;
    }
    const double ratio =
        metric.per_replica ? *values[i] / (metric.target * current) : *values[i] / metric.target;
    double wanted = current;
    if (std::abs(1 - ratio) > kTolerance)
      wanted = std::ceil(metric.per_replica ? *values[i] / metric.target : ratio * current);
    highest = std::max(highest, static_cast<int>(std::min<double>(wanted, kMaxReplicas)));
  }
  if (highest < 0) return current;
  return unknown ? std::max(highest, current) : highest;
}

int Autoscaler::Stabilised(double now_s, int current, int proposed) {
  int lowest = proposed;
  int highest = proposed;
  for (const Recommendation& earlier : recommendations_) {
    if (earlier.at_s > now_s - manifest_.up.window_s) lowest = std::min(lowest, earlier.replicas);
    if (earlier.at_s > now_s - manifest_.down.window_s)
      highest = std::max(highest, earlier.replicas);
  }
  const double kept = std::max(manifest_.up.window_s, manifest_.down.window_s);
  std::erase_if(recommendations_, [&](const Recommendation& r) { return r.at_s <= now_s - kept; });
  recommendations_.push_back({now_s, proposed});
  return std::min(std::max(current, lowest), highest);
}

int Autoscaler::UpLimit(double now_s, int current) const {
  const Rules& rules = manifest_.up;
  if (rules.select == Rules::Select::kDisabled) return current;
  double limit = rules.select == Rules::Select::kMax ? 0 : kMaxReplicas;
  for (const Policy& policy : rules.policies) {
    const double start =
        current - Within(added_, now_s, policy.period_s) + Within(removed_, now_s, policy.period_s);
    const double allowed =
        policy.percent ? std::ceil(start * (1 + policy.value / 100)) : start + policy.value;
    limit =
        rules.select == Rules::Select::kMax ? std::max(limit, allowed) : std::min(limit, allowed);
  }
  return std::max(current, static_cast<int>(std::min<double>(limit, kMaxReplicas)));
}

int Autoscaler::DownLimit(double now_s, int current) const {
  const Rules& rules = manifest_.down;
  if (rules.select == Rules::Select::kDisabled) return current;
  double limit = rules.select == Rules::Select::kMax ? kMaxReplicas : 0;
  for (const Policy& policy : rules.policies) {
    const double start =
        current - Within(added_, now_s, policy.period_s) + Within(removed_, now_s, policy.period_s);
    const double allowed =
        policy.percent ? std::floor(start * (1 - policy.value / 100)) : start - policy.value;
    limit =
        rules.select == Rules::Select::kMax ? std::min(limit, allowed) : std::max(limit, allowed);
  }
  return std::min(current, static_cast<int>(std::max(limit, 0.0)));
}

int Autoscaler::Decide(double now_s, int current,
                       const std::vector<std::optional<double>>& values) {
  if (current <= 0) return current;  // switched off, as Kubernetes has it
  if (current > manifest_.max) return manifest_.max;
  if (current < manifest_.min) return manifest_.min;
  int desired = Stabilised(now_s, current, Proposed(current, values));
  if (desired > current)
    desired = std::min({desired, UpLimit(now_s, current), manifest_.max});
  else if (desired < current)
    desired = std::max({desired, DownLimit(now_s, current), manifest_.min});
  constexpr double kLongestPeriod = 1800;
  const auto old = [&](const Change& change) { return change.at_s <= now_s - kLongestPeriod; };
  std::erase_if(added_, old);
  std::erase_if(removed_, old);
  if (desired > current) added_.push_back({now_s, desired - current});
  if (desired < current) removed_.push_back({now_s, current - desired});
  return desired;
}

}  // namespace parley::autoscale
