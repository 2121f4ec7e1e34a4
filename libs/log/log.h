#pragma once
// Structured logs: one JSON object a line on standard error (or readable text). The message is
// constant text; what varies goes into fields. No transcripts, no secrets, nothing per audio frame.
#include <fmt/format.h>

#include <concepts>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace parley::log {

enum class Level { kDebug, kInfo, kWarn, kError };
enum class Format { kJson, kText };

struct Field {
  template <typename T>
  Field(std::string_view k, const T& v) : key(k) {
    if constexpr (std::same_as<T, bool>) {
      value = v ? "true" : "false";
      quoted = false;
    } else if constexpr (std::integral<T> || std::floating_point<T>) {
      value = fmt::format("{}", v);
      quoted = false;
    } else {
      value = std::string(v);
    }
  }
  std::string key;
  std::string value;
  bool quoted = true;
};

// Where finished lines go. Called from any thread.
using Sink =
    std::function<void(Level level, std::string_view message, const std::vector<Field>& fields)>;

// Cheap to copy; copies share the sink. Thread-safe. Lines are written at once (no queue), so they
// survive fork and crash.
class Logger {
 public:
  Logger();  // drops everything
  static Logger ToStderr(Format format, Level level, std::string_view service);
  static Logger ToSink(Level level, Sink sink);

  // A logger that adds `fields` to each line. Bind ids once.
  Logger With(std::initializer_list<Field> fields) const;

  void Debug(std::string_view message, std::initializer_list<Field> fields = {}) const {
    Write(Level::kDebug, message, fields);
  }
  void Info(std::string_view message, std::initializer_list<Field> fields = {}) const {
    Write(Level::kInfo, message, fields);
  }
  void Warn(std::string_view message, std::initializer_list<Field> fields = {}) const {
    Write(Level::kWarn, message, fields);
  }
  void Error(std::string_view message, std::initializer_list<Field> fields = {}) const {
    Write(Level::kError, message, fields);
  }
  void Write(Level level, std::string_view message, std::initializer_list<Field> fields) const;

 private:
  struct Shared;
  std::shared_ptr<const Shared> shared_;
  std::vector<Field> bound_;
};

}  // namespace parley::log
