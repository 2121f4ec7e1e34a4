#pragma once
// What the command line prints and how it ends.
#include <absl/status/status.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace parley::cli {

using Json = nlohmann::ordered_json;

// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not authorised, 5 unavailable.
int ExitCodeOf(const absl::Status& status);
// The line itself was wrong: exit code 2, where other invalid arguments end in 1.
absl::Status UsageError(std::string_view message);
// "parley: <message>" on standard error.
void PrintError(const absl::Status& status);

// How to print data: people's tables, JSON for programs, or ids only.
struct Output {
  bool json = false;
  bool quiet = false;
};

// Columns padded to their widest cell; the header is left out when `quiet`.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
  void Row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  void Print() const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

void PrintJson(const Json& json);  // two spaces, one line feed at the end
// A value as one cell: text as it is, null as "-", the rest as JSON.
std::string Cell(const Json& object, std::string_view field);
// "12s", "4m", "3h", "2d" since an RFC 3339 time; "-" for null.
std::string Age(const Json& object, std::string_view field);

}  // namespace parley::cli
