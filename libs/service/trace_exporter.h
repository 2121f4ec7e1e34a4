#pragma once
#include <absl/time/time.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "http/client.h"
#include "log/log.h"
#include "trace/tracer.h"

namespace parley::service {

// The body of an OTLP/HTTP export (protos/parley/trace/v1/otlp.proto).
std::string EncodeSpans(const std::vector<trace::SpanRecord>& spans, const std::string& service,
                        const std::string& instance);

// Sends finished spans to a collector over OTLP/HTTP, in batches, from a thread of its own. A
// collector that is away costs nobody anything: what does not fit into the queue, or was refused
// four times, is dropped and counted. Thread-safe.
class TraceExporter {
 public:
  static constexpr size_t kQueue = 8192;  // some 4 MiB
  static constexpr size_t kBatch = 512;

  // `endpoint`: http://host:4318, the collector; /v1/traces is added unless it is there. "": there
  // is none, and the tracer keeps nothing. `service` as in logs.
  TraceExporter(std::string endpoint, std::string service, prometheus::Registry& registry,
                log::Logger log);
  // Sends what waits, for a few seconds at most; none when the collector did not answer lately.
  ~TraceExporter();

  const trace::Tracer& tracer() const { return tracer_; }

 private:
  void Run();
  // True: taken, or it never will be.
  bool Send(const std::string& body, size_t spans);
  void SendWithRetries(const std::vector<trace::SpanRecord>& spans);

  const std::string url_;
  const std::string service_;
  const std::string instance_;
  const log::Logger log_;
  prometheus::Counter& exported_;
  prometheus::Counter& dropped_queue_;
  prometheus::Counter& dropped_refused_;
  std::shared_ptr<trace::SpanQueue> queue_;
  trace::Tracer tracer_;
  std::unique_ptr<http::Client> client_;
  int64_t dropped_seen_ = 0;  // the thread's
  bool failing_ = false;      // the thread's
  std::thread thread_;
};

}  // namespace parley::service
