#include "log/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/trace_context.h"

namespace parley::log {
namespace {

std::string Quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

constexpr std::string_view Name(Level level) {
  switch (level) {
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kWarn:
      return "warn";
    case Level::kError:
      return "error";
  }
  return "";
}

std::string TimeText() {
  const auto now = std::chrono::system_clock::now();
  const auto seconds = std::chrono::time_point_cast<std::chrono::seconds>(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - seconds).count();
  const std::time_t time = std::chrono::system_clock::to_time_t(seconds);
  std::tm utc{};
  gmtime_r(&time, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, ms);
}

}  // namespace

struct Logger::Shared {
  Level level = Level::kError;
  Sink sink;
};

Logger::Logger() = default;

Logger Logger::ToSink(Level level, Sink sink) {
  auto shared = std::make_shared<Shared>();
  shared->level = level;
  shared->sink = std::move(sink);
  Logger logger;
  logger.shared_ = std::move(shared);
  return logger;
}

Logger Logger::ToStderr(Format format, Level level, std::string_view service) {
  auto out =
      std::make_shared<spdlog::logger>("parley", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  out->set_pattern("%v");
  out->set_level(spdlog::level::trace);
  out->flush_on(spdlog::level::trace);
  return ToSink(level,
                [out, format, service = std::string(service)](
                    Level line_level, std::string_view message, const std::vector<Field>& fields) {
                  fmt::memory_buffer line;
                  auto to = std::back_inserter(line);
                  if (format == Format::kJson) {
                    fmt::format_to(to, R"({{"time":"{}","level":"{}","service":{},"msg":{})",
                                   TimeText(), Name(line_level), Quoted(service), Quoted(message));
                    for (const Field& field : fields) {
                      fmt::format_to(to, ",{}:{}", Quoted(field.key),
                                     field.quoted ? Quoted(field.value) : field.value);
                    }
                    fmt::format_to(to, "}}");
                  } else {
                    fmt::format_to(to, "{} {:5} {} {}", TimeText().substr(11, 12), Name(line_level),
                                   service, message);
                    for (const Field& field : fields)
                      fmt::format_to(to, " {}={}", field.key, field.value);
                  }
                  out->log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
                });
}

Logger Logger::With(std::initializer_list<Field> fields) const {
  Logger logger = *this;
  logger.bound_.insert(logger.bound_.end(), fields.begin(), fields.end());
  return logger;
}

void Logger::Write(Level level, std::string_view message,
                   std::initializer_list<Field> fields) const {
  if (!shared_ || level < shared_->level) return;
  std::vector<Field> all = bound_;
  all.insert(all.end(), fields.begin(), fields.end());
  if (CurrentTrace().valid() && std::ranges::find(all, "trace_id", &Field::key) == all.end()) {
    all.emplace_back("trace_id", CurrentTrace().TraceId());
  }
  shared_->sink(level, message, all);
}

}  // namespace parley::log
