#pragma once
// Thin helpers over prometheus-cpp. Each service has one struct that makes all of its metrics from
// a registry; children are resolved there, once, never per call. Labels come from small closed
// sets, never ids.
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <string>
#include <vector>

namespace parley::metrics {

using Labels = std::map<std::string, std::string>;

prometheus::Counter& Counter(prometheus::Registry& registry, const std::string& name,
                             const std::string& help, const Labels& labels = {});
prometheus::Gauge& Gauge(prometheus::Registry& registry, const std::string& name,
                         const std::string& help, const Labels& labels = {});
// Buckets in seconds by default: 0.5 ms to 60 s.
prometheus::Histogram& Histogram(prometheus::Registry& registry, const std::string& name,
                                 const std::string& help, const Labels& labels = {},
                                 const std::vector<double>& buckets = {});
// The Prometheus text form of everything in the registry.
std::string Render(prometheus::Registry& registry);

}  // namespace parley::metrics
