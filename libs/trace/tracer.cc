#include "trace/tracer.h"

#include <algorithm>

#include "base/clock.h"
#include "base/status.h"

namespace parley::trace {

void SpanQueue::Add(SpanRecord span) {
  MutexLock lock(&mutex_);
  if (closed_ || spans_.size() >= limit_) {
    ++dropped_;
    return;
  }
  spans_.push_back(std::move(span));
  if (spans_.size() == wanted_) changed_.Signal();
}

std::vector<SpanRecord> SpanQueue::Take(size_t most, absl::Duration wait) {
  const absl::Time until = Clock::Real().Now() + wait;
  MutexLock lock(&mutex_);
  wanted_ = most;
  while (!closed_ && spans_.size() < most) {
    const absl::Duration left = until - Clock::Real().Now();
    if (left <= absl::ZeroDuration()) break;
    changed_.WaitFor(&mutex_, left);
  }
  const auto end = spans_.begin() + static_cast<ptrdiff_t>(std::min(most, spans_.size()));
  std::vector<SpanRecord> taken(std::make_move_iterator(spans_.begin()),
                                std::make_move_iterator(end));
  spans_.erase(spans_.begin(), end);
  return taken;
}

void SpanQueue::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
  changed_.SignalAll();
}

bool SpanQueue::closed() const {
  MutexLock lock(&mutex_);
  return closed_;
}

Span Tracer::Start(std::string_view name, Kind kind, const TraceContext& parent) const {
  Span span;
  span.context_ = parent;
  if (!enabled() || (parent.valid() && !parent.sampled)) return span;
  span.context_ = parent.valid() ? parent.Child() : TraceContext::Root();
  span.queue_ = queue_;
  span.record_.context = span.context_;
  if (parent.valid()) span.record_.parent = parent.span_id;
  span.record_.name = name;
  span.record_.kind = kind;
  span.record_.start = Clock::Real().Now();
  span.start_us_ = Clock::Real().MonotonicMicros();
  return span;
}

void Tracer::Record(std::string_view name, Kind kind, const TraceContext& parent, absl::Time start,
                    absl::Time end, std::vector<Attribute> attributes) const {
  if (!enabled() || !parent.valid() || !parent.sampled) return;
  SpanRecord record;
  record.context = parent.Child();
  record.parent = parent.span_id;
  record.name = name;
  record.kind = kind;
  record.start = std::min(start, end);
  record.end = end;
  record.attributes = std::move(attributes);
  queue_->Add(std::move(record));
}

Span::Span(Span&& other) noexcept { *this = std::move(other); }

Span& Span::operator=(Span&& other) noexcept {
  if (this == &other) return *this;
  End();
  context_ = other.context_;
  queue_ = std::move(other.queue_);
  record_ = std::move(other.record_);
  start_us_ = other.start_us_;
  return *this;
}

void Span::Fail(const absl::Status& status) {
  if (!status.ok()) Fail(Message(status));
}

void Span::Fail(std::string_view error) {
  if (queue_ != nullptr) record_.error = error.empty() ? "failed" : error;
}

void Span::End() {
  if (queue_ == nullptr) return;
  const auto queue = std::move(queue_);
  queue_ = nullptr;
  record_.end = record_.start + absl::Microseconds(Clock::Real().MonotonicMicros() - start_us_);
  queue->Add(std::move(record_));
}

}  // namespace parley::trace
