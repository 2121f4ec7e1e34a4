#pragma once
// Spans: what was done for a trace, from when to when. They are put into a bounded queue, from
// which an exporter (service/trace_exporter.h) takes them; nobody ever waits for it.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/mutex.h"
#include "base/trace_context.h"

namespace parley::trace {

// As OpenTelemetry's SpanKind.
enum class Kind { kInternal = 1, kServer = 2, kClient = 3, kProducer = 4, kConsumer = 5 };

using Value = std::variant<std::string, int64_t, double, bool>;
using Attribute = std::pair<std::string, Value>;

// A span that is over.
struct SpanRecord {
  TraceContext context;
  std::array<uint8_t, 8> parent{};  // zeros: the first of its trace
  std::string name;                 // from a small closed set
  Kind kind = Kind::kInternal;
  absl::Time start;
  absl::Time end;
  std::vector<Attribute> attributes;  // ids and numbers; no transcripts, no secrets
  std::string error;                  // why it failed; "" = it did not
};

// Finished spans on their way to an exporter. Thread-safe.
class SpanQueue {
 public:
  explicit SpanQueue(size_t limit) : limit_(limit) {}

  // Drops the span, and counts it, when `limit` wait already. Never blocks but for a short lock.
  void Add(SpanRecord span);
  // At most `most` spans, oldest first. Waits until as many are there, `wait` has passed, or
  // Close().
  std::vector<SpanRecord> Take(size_t most, absl::Duration wait);
  // Take() does not wait any more, and nothing is added.
  void Close();
  bool closed() const;
  int64_t dropped() const { return dropped_.load(); }  // since the start

 private:
  const size_t limit_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<SpanRecord> spans_ ABSL_GUARDED_BY(mutex_);
  size_t wanted_ ABSL_GUARDED_BY(mutex_) = 0;  // by a Take() under way: wake it then
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<int64_t> dropped_{0};
};

class Span;

// Begins spans. Cheap to copy; copies share the queue. Thread-safe.
class Tracer {
 public:
  Tracer() = default;  // keeps nothing: contexts only pass through
  explicit Tracer(std::shared_ptr<SpanQueue> queue) : queue_(std::move(queue)) {}

  bool enabled() const { return queue_ != nullptr; }

  // A span below `parent`; without a valid one, the first of a new trace. Keeps nothing, and passes
  // `parent` on as it is, when the tracer is not enabled or the trace not sampled.
  Span Start(std::string_view name, Kind kind, const TraceContext& parent = CurrentTrace()) const;
  // One that is over already. Nothing without a valid, sampled parent.
  void Record(std::string_view name, Kind kind, const TraceContext& parent, absl::Time start,
              absl::Time end, std::vector<Attribute> attributes = {}) const;

 private:
  std::shared_ptr<SpanQueue> queue_;
};

// Under way until End() or its destruction. Not thread-safe.
class Span {
 public:
  Span() = default;  // of no trace
  Span(Span&& other) noexcept;
  Span& operator=(Span&& other) noexcept;
  ~Span() { End(); }

  // What is done for this span goes on under this context.
  const TraceContext& context() const { return context_; }
  // Costs nothing, not even a copy of the value, when the span is not kept.
  template <typename T>
  void Set(std::string_view key, T&& value) {
    if (queue_ != nullptr) record_.attributes.emplace_back(key, std::forward<T>(value));
  }
  // It failed; an OK status changes nothing.
  void Fail(const absl::Status& status);
  void Fail(std::string_view error);
  void End();  // idempotent

 private:
  friend class Tracer;
  TraceContext context_;
  std::shared_ptr<SpanQueue> queue_;  // null: not kept, or over
  SpanRecord record_;
  int64_t start_us_ = 0;  // monotonic
};

}  // namespace parley::trace
