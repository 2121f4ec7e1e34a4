#pragma once
// W3C trace context (level 1): which trace a piece of work belongs to, and which span of it caused
// the work. Carried as `traceparent` over HTTP, gRPC and in records; spans themselves are made by
// libs/trace.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace parley {

struct TraceContext {
  std::array<uint8_t, 16> trace_id{};
  std::array<uint8_t, 8> span_id{};
  bool sampled = false;  // whoever began the trace wants its spans kept

  // An id of zeros means none.
  bool valid() const;
  // 32 lower-case hex digits; "" when not valid.
  std::string TraceId() const;
  // "00-<trace id>-<span id>-<01 sampled, else 00>"; "" when not valid.
  std::string Traceparent() const;

  // What `traceparent` says; not valid when it is malformed or "". Versions after 00 are read as
  // far as 00 goes, as the standard asks.
  static TraceContext Parse(std::string_view traceparent);
  // The first of a new trace.
  static TraceContext Root();
  // The same trace, with a span id of its own.
  TraceContext Child() const;

  bool operator==(const TraceContext&) const = default;
};

// What the calling thread works for: goes into its log lines, and with its calls to others. Not
// valid when it works for no trace.
const TraceContext& CurrentTrace();

// Sets it from construction to destruction, on one thread. Scopes nest.
class TraceScope {
 public:
  explicit TraceScope(const TraceContext& trace);
  ~TraceScope();
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  const TraceContext before_;
};

}  // namespace parley
