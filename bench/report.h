#pragma once
// What every benchmark prints: a table, and with --json FILE
// {"name", "date", "host", "results": [{"metric", "unit", "n", "value" | "p50", "p90", "p99",
// "max"}]}.
#include <string>
#include <string_view>
#include <vector>

namespace parley::bench {

struct Options {
  std::string json_path;  // "" = none
  bool quick = false;     // a smoke run: marked in the result, never quoted
};

class Report {
 public:
  Report(std::string name, Options options);

  // Percentiles of measured values (at least one), by rank, without interpolation.
  void Samples(std::string_view metric, std::string_view unit, std::vector<double> values,
               std::string_view target = {});
  void Value(std::string_view metric, std::string_view unit, double value, int n,
             std::string_view target = {});

  // Prints the table and writes the file. False when the file could not be written.
  bool Finish() const;

 private:
  struct Row {
    std::string metric;
    std::string unit;
    std::string target;
    int n = 0;
    bool single = false;
    double value = 0;
    double p50 = 0;
    double p90 = 0;
    double p99 = 0;
    double max = 0;
  };
  std::string name_;
  Options options_;
  std::vector<Row> rows_;
};

}  // namespace parley::bench
