#include "terminal.h"

#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/status.h"

namespace parley::cli {
namespace {
constexpr char kUsage[] = "USAGE";
}  // namespace

absl::Status UsageError(std::string_view message) {
  return WithReason(InvalidArgument("{}", message), kUsage);
}

int ExitCodeOf(const absl::Status& status) {
  if (ReasonOf(status).reason == kUsage) return 2;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kNotFound:
      return 3;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return 4;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
      return 5;
    default:
      return 1;
  }
}

void PrintError(const absl::Status& status) {
  std::fflush(stdout);
  fmt::print(stderr, "parley: {}\n", Message(status));
}

void Table::Print() const {
  std::vector<size_t> widths;
  for (const std::string& title : header_) widths.push_back(title.size());
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  const auto line = [&widths](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i)
      text += i + 1 == cells.size() ? cells[i] : fmt::format("{:<{}}  ", cells[i], widths[i]);
    fmt::print("{}\n", text);
  };
  line(header_);
  for (const auto& row : rows_) line(row);
}

void PrintJson(const Json& json) {
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

std::string Cell(const Json& object, std::string_view field) {
  const auto it = object.find(std::string(field));
  if (it == object.end() || it->is_null()) return "-";
  if (!it->is_string()) return it->dump();
  const auto& text = it->get_ref<const std::string&>();
  return text.empty() ? "-" : text;
}

std::string Age(const Json& object, std::string_view field) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, Cell(object, field), &time, &error)) return "-";
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(absl::Now() - time));
  if (seconds < 120) return fmt::format("{}s", seconds);
  if (seconds < 7200) return fmt::format("{}m", seconds / 60);
  if (seconds < 172800) return fmt::format("{}h", seconds / 3600);
  return fmt::format("{}d", seconds / 86400);
}

}  // namespace parley::cli
