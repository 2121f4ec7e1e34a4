// What tracing costs while nobody traces: nothing is allocated, counted.
#include <gtest/gtest.h>

#include "count_allocations.h"
#include "trace/tracer.h"

namespace parley::trace {
namespace {

using testing::allocations;

constexpr char kTraceparent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const std::string kLong(200, 'x');

// As services use it for a request: read its header, work under a span, say what it was about.
void Work(const Tracer& tracer, std::string_view header) {
  Span span = tracer.Start("a span of a name too long for a short string", Kind::kServer,
                           TraceContext::Parse(header));
  const TraceScope scope(span.context());
  span.Set("room", kLong);
  span.Set("attempt", int64_t{1});
  Span inner = tracer.Start("inner", Kind::kClient);
  inner.Set("ratio", 0.5);
  inner.Fail(absl::OkStatus());
}

int64_t AllocationsOf(const Tracer& tracer, std::string_view header) {
  const int64_t before = allocations;
  for (int i = 0; i < 1000; ++i) Work(tracer, header);
  return allocations - before;
}

TEST(TracerTest, NothingIsAllocatedWhileNobodyTraces) {
  EXPECT_EQ(AllocationsOf(Tracer(), ""), 0);
  EXPECT_EQ(AllocationsOf(Tracer(), kTraceparent), 0);
}

TEST(TracerTest, NothingIsAllocatedForATraceThatNobodyWantsKept) {
  const auto queue = std::make_shared<SpanQueue>(16);
  const Tracer tracer(queue);
  std::string unsampled = kTraceparent;
  unsampled.back() = '0';
  EXPECT_EQ(AllocationsOf(tracer, unsampled), 0);
  EXPECT_GT(AllocationsOf(tracer, kTraceparent), 0);  // the count counts
  EXPECT_EQ(queue->Take(100, absl::ZeroDuration()).size(), 16U);
  EXPECT_EQ(queue->dropped(), 2000 - 16);
}

TEST(TracerTest, ASpanThatMovesEndsOnce) {
  const auto queue = std::make_shared<SpanQueue>(16);
  const Tracer tracer(queue);
  {
    Span first = tracer.Start("first", Kind::kServer);
    const TraceContext context = first.context();
    Span second = std::move(first);
    EXPECT_EQ(second.context(), context);
    second = tracer.Start("second", Kind::kServer);
  }
  const std::vector<SpanRecord> spans = queue->Take(100, absl::ZeroDuration());
  ASSERT_EQ(spans.size(), 2U);
  EXPECT_EQ(spans[0].name, "first");
  EXPECT_EQ(spans[1].name, "second");
}

}  // namespace
}  // namespace parley::trace
