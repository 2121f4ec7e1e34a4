// Any text as a traceparent: no trace, or one that is written as it was read.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/trace_context.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using parley::TraceContext;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const TraceContext trace = TraceContext::Parse(text);
  const std::string written = trace.Traceparent();
  PARLEY_CHECK(trace.valid() == !written.empty());
  if (!trace.valid()) return 0;
  PARLEY_CHECK(text.size() >= written.size());
  // All but the version and the flags that nobody here knows.
  PARLEY_CHECK(written.substr(2, 51) == text.substr(2, 51));
  PARLEY_CHECK(TraceContext::Parse(written) == trace);
  return 0;
}
