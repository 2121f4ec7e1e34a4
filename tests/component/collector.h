#pragma once
// A collector of spans, as far as a test needs one: OTLP over HTTP.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/executor.h"
#include "base/mutex.h"
#include "http/server.h"
#include "parley/trace/v1/otlp.pb.h"
#include "testing/matchers.h"

namespace parley::testing {

// Takes exports and keeps their spans. Thread-safe.
class Collector {
 public:
  struct Seen {
    std::string service;
    trace::v1::Span span;
  };

  Collector() : threads_(2, 64), server_({}, threads_, log::Logger()) {
    server_.Handle("POST", "/v1/traces",
                   [this](const http::Request& request) { return Take(request); });
    PARLEY_EXPECT_OK(server_.Start());
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_.port()); }
  // How it answers from now on; of each export it says that it does not take `refuses` spans.
  void Answer(int status, int refuses = 0) {
    MutexLock lock(&mutex_);
    status_ = status;
    refuses_ = refuses;
  }
  std::vector<Seen> seen() const {
    MutexLock lock(&mutex_);
    return seen_;
  }
  int requests() const {
    MutexLock lock(&mutex_);
    return requests_;
  }
  // The span of this name; waits for it.
  trace::v1::Span Named(const std::string& name) const {
    trace::v1::Span found;
    EXPECT_TRUE(Eventually([&] {
      for (const Seen& one : seen()) {
        if (one.span.name() != name) continue;
        found = one.span;
        return true;
      }
      return false;
    })) << name;
    return found;
  }

 private:
  http::Response Take(const http::Request& request) {
    MutexLock lock(&mutex_);
    ++requests_;
    trace::v1::ExportRequest body;
    EXPECT_EQ(request.Header("content-type"), "application/x-protobuf");
    EXPECT_TRUE(body.ParseFromString(request.body));
    trace::v1::ExportResponse answer;
    if (refuses_ > 0) answer.mutable_partial_success()->set_rejected_spans(refuses_);
    if (status_ == 200) {
      for (const auto& resource : body.resource_spans()) Keep(resource);
    }
    return http::Response{status_, "application/x-protobuf", answer.SerializeAsString(), {}};
  }
  void Keep(const trace::v1::ResourceSpans& resource) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::string service;
    for (const auto& attribute : resource.resource().attributes()) {
      if (attribute.key() == "service.name") service = attribute.value().string_value();
    }
    for (const auto& scope : resource.scope_spans()) {
      for (const trace::v1::Span& span : scope.spans()) seen_.push_back({service, span});
    }
  }

  mutable Mutex mutex_;
  int status_ ABSL_GUARDED_BY(mutex_) = 200;
  int refuses_ ABSL_GUARDED_BY(mutex_) = 0;
  int requests_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Seen> seen_ ABSL_GUARDED_BY(mutex_);
  Executor threads_;
  http::Server server_;
};

}  // namespace parley::testing
