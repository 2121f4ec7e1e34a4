#include "report.h"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/check.h"

namespace parley::bench {
namespace {

double Rank(const std::vector<double>& sorted, double fraction) {
  const auto rank = static_cast<size_t>(std::ceil(fraction * static_cast<double>(sorted.size())));
  return sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1];
}

std::string Now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

// Kernel and cores, not the machine's name: results are compared, machines are not identified.
std::string Host() {
  utsname names{};
  uname(&names);
  return fmt::format("{} {}, {} cores", names.sysname, names.release,
                     sysconf(_SC_NPROCESSORS_ONLN));
}

}  // namespace

Report::Report(std::string name, Options options)
    : name_(std::move(name)), options_(std::move(options)) {}

void Report::Samples(std::string_view metric, std::string_view unit, std::vector<double> values,
                     std::string_view target) {
  PARLEY_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  Row row;
  row.metric = metric;
  row.unit = unit;
  row.target = target;
  row.n = static_cast<int>(values.size());
  row.p50 = Rank(values, 0.5);
  row.p90 = Rank(values, 0.9);
  row.p99 = Rank(values, 0.99);
  row.max = values.back();
  rows_.push_back(std::move(row));
}

void Report::Value(std::string_view metric, std::string_view unit, double value, int n,
                   std::string_view target) {
  Row row;
  row.metric = metric;
  row.unit = unit;
  row.target = target;
  row.n = n;
  row.single = true;
  row.value = value;
  rows_.push_back(std::move(row));
}

bool Report::Finish() const {
  fmt::print("{}{}\n", name_, options_.quick ? " (quick: a smoke run, not a result)" : "");
  fmt::print("{:<38} {:>7} {:>6} {:>10} {:>10} {:>10} {:>10}  {}\n", "metric", "unit", "n", "p50",
             "p90", "p99", "max", "target");
  nlohmann::json results = nlohmann::json::array();
  for (const Row& row : rows_) {
    nlohmann::json json = {{"metric", row.metric}, {"unit", row.unit}, {"n", row.n}};
    if (row.single) {
      fmt::print("{:<38} {:>7} {:>6} {:>10.3f} {:>10} {:>10} {:>10}  {}\n", row.metric, row.unit,
                 row.n, row.value, "", "", "", row.target);
      json["value"] = row.value;
    } else {
      fmt::print("{:<38} {:>7} {:>6} {:>10.3f} {:>10.3f} {:>10.3f} {:>10.3f}  {}\n", row.metric,
                 row.unit, row.n, row.p50, row.p90, row.p99, row.max, row.target);
      json["p50"] = row.p50;
      json["p90"] = row.p90;
      json["p99"] = row.p99;
      json["max"] = row.max;
    }
    if (!row.target.empty()) json["target"] = row.target;
    results.push_back(std::move(json));
  }
  if (options_.json_path.empty()) return true;
  nlohmann::json document = {
      {"name", name_}, {"date", Now()}, {"host", Host()}, {"results", std::move(results)}};
  if (options_.quick) document["quick"] = true;
  std::ofstream file(options_.json_path);
  file << document.dump(2) << "\n";
  return static_cast<bool>(file.flush());
}

}  // namespace parley::bench
