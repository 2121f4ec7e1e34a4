#include "service/trace_exporter.h"

#include <absl/time/clock.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "metrics/metrics.h"
#include "parley/trace/v1/otlp.pb.h"

namespace parley::service {
namespace {

namespace v1 = ::parley::trace::v1;

constexpr absl::Duration kEvery = absl::Seconds(1);
constexpr absl::Duration kTimeout = absl::Seconds(5);
constexpr absl::Duration kLastTimeout = absl::Seconds(2);
constexpr int kTries = 4;
constexpr absl::Duration kFirstRetry = absl::Milliseconds(250);
constexpr int kErrorCode = 2;
constexpr size_t kMaxText = 1024;  // bytes of an error or an attribute

constexpr char kDroppedHelp[] = "Spans that no collector got: queue full, or refused";

std::string UrlOf(std::string endpoint) {
  constexpr std::string_view kPath = "/v1/traces";
  if (endpoint.empty()) return endpoint;
  while (endpoint.ends_with('/')) endpoint.pop_back();
  if (!endpoint.ends_with(kPath)) endpoint += kPath;
  return endpoint;
}

std::string_view Bytes(const auto& id) {
  return {reinterpret_cast<const char*>(id.data()), id.size()};
}

// A collector refuses a whole batch for one text that is no UTF-8, and errors quote what they got.
std::string Text(std::string_view given) {
  std::string text(given.substr(0, kMaxText));
  if (IsValidUtf8(text)) return text;
  for (char& c : text) c = (c & 0x80) == 0 ? c : '?';
  return text;
}

void Put(std::string_view key, const trace::Value& value, v1::KeyValue* out) {
  out->set_key(std::string(key));
  v1::AnyValue* to = out->mutable_value();
  if (const auto* text = std::get_if<std::string>(&value)) {
    to->set_string_value(Text(*text));
  } else if (const auto* number = std::get_if<int64_t>(&value)) {
    to->set_int_value(*number);
  } else if (const auto* real = std::get_if<double>(&value)) {
    to->set_double_value(*real);
  } else {
    to->set_bool_value(std::get<bool>(value));
  }
}

void Put(const trace::SpanRecord& span, v1::Span* out) {
  out->set_trace_id(std::string(Bytes(span.context.trace_id)));
  out->set_span_id(std::string(Bytes(span.context.span_id)));
  if (span.parent != decltype(span.parent){}) {
    out->set_parent_span_id(std::string(Bytes(span.parent)));
  }
  out->set_name(span.name);
  out->set_kind(static_cast<int32_t>(span.kind));
  out->set_start_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(span.start)));
  out->set_end_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(span.end)));
  for (const auto& [key, value] : span.attributes) Put(key, value, out->add_attributes());
  if (!span.error.empty()) {
    out->mutable_status()->set_code(kErrorCode);
    out->mutable_status()->set_message(Text(span.error));
  }
  out->set_flags(span.context.sampled ? 1 : 0);
}

bool MayHelpToRepeat(int status) {
  return status == 408 || status == 429 || status == 502 || status == 503 || status == 504;
}

}  // namespace

std::string EncodeSpans(const std::vector<trace::SpanRecord>& spans, const std::string& service,
                        const std::string& instance) {
  v1::ExportRequest request;
  v1::ResourceSpans& all = *request.add_resource_spans();
  Put("service.name", service, all.mutable_resource()->add_attributes());
  Put("service.namespace", std::string("parley"), all.mutable_resource()->add_attributes());
  Put("service.instance.id", instance, all.mutable_resource()->add_attributes());
  v1::ScopeSpans& scope = *all.add_scope_spans();
  scope.mutable_scope()->set_name("parley");
  for (const trace::SpanRecord& span : spans) Put(span, scope.add_spans());
  return request.SerializeAsString();
}

TraceExporter::TraceExporter(std::string endpoint, std::string service,
                             prometheus::Registry& registry, log::Logger log)
    : url_(UrlOf(std::move(endpoint))),
      service_(std::move(service)),
      instance_(RandomHex(8)),
      log_(std::move(log)),
      exported_(metrics::Counter(registry, "parley_trace_spans_exported_total",
                                 "Spans that the collector took")),
      dropped_queue_(metrics::Counter(registry, "parley_trace_spans_dropped_total", kDroppedHelp,
                                      {{"why", "queue"}})),
      dropped_refused_(metrics::Counter(registry, "parley_trace_spans_dropped_total", kDroppedHelp,
                                        {{"why", "refused"}})) {
  if (url_.empty()) return;
  client_ = std::make_unique<http::Client>();
  queue_ = std::make_shared<trace::SpanQueue>(kQueue);
  tracer_ = trace::Tracer(queue_);
  thread_ = std::thread([this] { Run(); });
}

TraceExporter::~TraceExporter() {
  if (!thread_.joinable()) return;
  queue_->Close();
  thread_.join();
}

void TraceExporter::Run() {
  absl::Time give_up = absl::InfiniteFuture();
  while (true) {
    const bool last = queue_->closed();
    if (last) give_up = std::min(give_up, absl::Now() + kLastTimeout);
    const std::vector<trace::SpanRecord> spans = queue_->Take(kBatch, kEvery);
    const int64_t dropped = queue_->dropped();
    dropped_queue_.Increment(static_cast<double>(dropped - std::exchange(dropped_seen_, dropped)));
    if (spans.empty() && last) return;
    // At the end nobody waits for a collector that is away or slow.
    if (last && (failing_ || absl::Now() > give_up)) {
      dropped_refused_.Increment(static_cast<double>(spans.size()));
    } else if (!spans.empty()) {
      SendWithRetries(spans);
    }
  }
}

void TraceExporter::SendWithRetries(const std::vector<trace::SpanRecord>& spans) {
  const std::string body = EncodeSpans(spans, service_, instance_);
  absl::Duration wait = kFirstRetry;
  for (int tries = 1; tries <= kTries; ++tries, wait *= 2) {
    if (Send(body, spans.size())) return;
    if (queue_->closed()) break;  // one try each at the end
    if (tries < kTries) absl::SleepFor(wait);
  }
  dropped_refused_.Increment(static_cast<double>(spans.size()));
}

bool TraceExporter::Send(const std::string& body, size_t spans) {
  http::Call call;
  call.method = "POST";
  call.url = url_;
  call.headers = {{"content-type", "application/x-protobuf"}};
  call.body = body;
  call.timeout = kTimeout;
  call.connect_timeout = kTimeout;
  call.max_response_bytes = 64 << 10;
  call.reach = http::Reach::kAny;  // the operator's own address
  const absl::Time start = absl::Now();
  const absl::StatusOr<http::Reply> reply =
      client_->Fetch(call, [&] { return queue_->closed() && absl::Now() - start > kLastTimeout; });
  const bool taken = reply.ok() && reply->status / 100 == 2;
  const bool known = std::exchange(failing_, !taken);
  if (!taken && !known) {
    log_.Warn("the trace collector does not take spans; what it misses is dropped",
              {{"url", url_},
               {"error", reply.ok() ? fmt::format("HTTP {}", reply->status)
                                    : std::string(Message(reply.status()))}});
  }
  if (!taken) {
    if (!reply.ok() || MayHelpToRepeat(reply->status)) return false;
    dropped_refused_.Increment(static_cast<double>(spans));
    return true;
  }
  v1::ExportResponse response;
  int64_t refused = 0;
  if (response.ParseFromString(reply->body)) {
    refused = std::clamp<int64_t>(response.partial_success().rejected_spans(), 0,
                                  static_cast<int64_t>(spans));
  }
  exported_.Increment(static_cast<double>(static_cast<int64_t>(spans) - refused));
  dropped_refused_.Increment(static_cast<double>(refused));
  return true;
}

}  // namespace parley::service
