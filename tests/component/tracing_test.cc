// Spans on their way to a collector, and the trace context on its way from each gateway to
// providers, over real HTTP and gRPC. (A whole call: trace_call_test.cc.)
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "collector.h"
#include "gateway_fixture.h"
#include "llm_gateway/llm_gateway.h"
#include "metrics/metrics.h"
#include "parley/llm/v1/llm.grpc.pb.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "provider.h"
#include "service/trace_exporter.h"
#include "stt_gateway/stt_gateway.h"
#include "testing/matchers.h"
#include "tts_gateway/tts_gateway.h"

namespace parley {
namespace {

using service::TraceExporter;
using testing::Collector;
using testing::Eventually;
using testing::Provider;
using testing::RunningGateway;
using trace::v1::Span;

double Metric(prometheus::Registry& registry, const std::string& line) {
  const std::string page = metrics::Render(registry);
  const size_t at = page.find("\n" + line + " ");
  return at == std::string::npos ? -1 : std::stod(page.substr(at + line.size() + 2));
}

class TraceExporterTest : public ::testing::Test {
 protected:
  double Exported() { return Metric(registry_, "parley_trace_spans_exported_total"); }
  double Dropped(const std::string& why) {
    return Metric(registry_, "parley_trace_spans_dropped_total{why=\"" + why + "\"}");
  }
  prometheus::Registry registry_;
};

TEST_F(TraceExporterTest, SendsWhatIsOverWithItsParents) {
  const Collector collector;
  TraceContext root;
  {
    TraceExporter exporter(collector.url(), "test", registry_, {});
    trace::Span outer = exporter.tracer().Start("outer", trace::Kind::kServer);
    root = outer.context();
    const TraceScope scope(root);
    trace::Span inner = exporter.tracer().Start("inner", trace::Kind::kClient);
    inner.Set("n", int64_t{7});
    inner.Fail(Unavailable("away"));
  }  // what waits is sent at the end
  const Span outer = collector.Named("outer"), inner = collector.Named("inner");
  EXPECT_EQ(outer.parent_span_id(), "");
  EXPECT_EQ(inner.parent_span_id(), outer.span_id());
  EXPECT_EQ(inner.trace_id(), outer.trace_id());
  EXPECT_EQ(inner.status().message(), "away");
  EXPECT_EQ(inner.attributes(0).value().int_value(), 7);
  EXPECT_LE(inner.end_time_unix_nano(), outer.end_time_unix_nano() + 1'000'000);
  EXPECT_EQ(Exported(), 2);
}

// Errors quote what they got: one must not cost the batch it is in.
TEST_F(TraceExporterTest, TextsThatAreNoUtf8OrTooLongAreMended) {
  const Collector collector;
  {
    TraceExporter exporter(collector.url(), "test", registry_, {});
    trace::Span span = exporter.tracer().Start("quotes", trace::Kind::kClient);
    span.Set("cut", std::string("3 \xe2\x82"));
    span.Set("long", std::string(100'000, 'x'));
    span.Fail("HTTP 404: \xff\xfe");
  }
  const Span span = collector.Named("quotes");
  EXPECT_EQ(span.status().message(), "HTTP 404: ??");
  EXPECT_EQ(span.attributes(0).value().string_value(), "3 ??");
  EXPECT_EQ(span.attributes(1).value().string_value().size(), 1024U);
}

TEST_F(TraceExporterTest, WithoutACollectorAContextOnlyPassesThrough) {
  TraceExporter exporter("", "test", registry_, {});
  const TraceContext given = TraceContext::Root();
  EXPECT_FALSE(exporter.tracer().enabled());
  EXPECT_EQ(exporter.tracer().Start("x", trace::Kind::kServer, given).context(), given);
  EXPECT_FALSE(exporter.tracer().Start("x", trace::Kind::kServer).context().valid());
}

TEST_F(TraceExporterTest, WhatNobodyWantsKeptIsNotSent) {
  const Collector collector;
  {
    TraceExporter exporter(collector.url(), "test", registry_, {});
    TraceContext given = TraceContext::Root();
    given.sampled = false;
    EXPECT_EQ(exporter.tracer().Start("x", trace::Kind::kServer, given).context(), given);
    exporter.tracer().Record("y", trace::Kind::kInternal, given, absl::Now(), absl::Now());
  }
  EXPECT_EQ(collector.requests(), 0);
}

// The bound, and that nobody waits: a collector that hears but does not answer.
TEST_F(TraceExporterTest, ACollectorThatHangsCostsNobodyTimeAndDropsAreCounted) {
  const Provider silent({""}, absl::Minutes(1));
  const absl::Time start = absl::Now();
  constexpr int kSpans = static_cast<int>(3 * TraceExporter::kQueue);
  absl::Duration longest;
  {
    TraceExporter exporter(silent.url(), "test", registry_, {});
    for (int i = 0; i < kSpans; ++i) {
      const absl::Time before = absl::Now();
      exporter.tracer().Start("x", trace::Kind::kServer).End();
      longest = std::max(longest, absl::Now() - before);
    }
    EXPECT_TRUE(Eventually([&] { return !silent.asked().empty(); }));
  }
  EXPECT_LT(longest, absl::Seconds(3)) << "an export is given up after five";
  EXPECT_LT(absl::Now() - start, absl::Seconds(20)) << "thousands that waited would take hours";
  EXPECT_EQ(Exported(), 0);
  EXPECT_GT(Dropped("queue"), kSpans - 2.0 * TraceExporter::kQueue);
  EXPECT_EQ(Dropped("queue") + Dropped("refused"), kSpans);
}

TEST_F(TraceExporterTest, BusyIsTriedAgainRefusedIsNot) {
  Collector collector;
  collector.Answer(503);
  TraceExporter exporter(collector.url() + "/v1/traces/", "test", registry_, {});
  exporter.tracer().Start("first", trace::Kind::kServer).End();
  ASSERT_TRUE(Eventually([&] { return collector.requests() >= 2; }));
  collector.Answer(200);
  collector.Named("first");
  collector.Answer(400);
  const int before = collector.requests();
  exporter.tracer().Start("second", trace::Kind::kServer).End();
  ASSERT_TRUE(Eventually([&] { return Dropped("refused") == 1; }));
  EXPECT_EQ(collector.requests(), before + 1);
  collector.Answer(200, 1);
  exporter.tracer().Start("third", trace::Kind::kServer).End();
  ASSERT_TRUE(Eventually([&] { return Dropped("refused") == 2; }));
  EXPECT_EQ(Exported(), 1);
}

// ---- to providers ----

std::string Ok(const std::string& type, const std::string& body) {
  return "HTTP/1.1 200 OK\r\nContent-Type: " + type +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" +
         body;
}

// What the provider was asked names `span`, which belongs to `given`.
void ExpectAskedFor(const Provider& provider, const Span& span, const TraceContext& given) {
  const std::string asked = provider.asked();
  const size_t at = asked.find("traceparent: ");
  ASSERT_NE(at, std::string::npos) << asked.substr(0, 500);
  const TraceContext sent = TraceContext::Parse(asked.substr(at + 13, 55));
  ASSERT_TRUE(sent.valid());
  EXPECT_EQ(sent.trace_id, given.trace_id);
  EXPECT_EQ(std::string(sent.span_id.begin(), sent.span_id.end()), span.span_id());
}

std::string IdOf(const TraceContext& trace) { return {trace.span_id.begin(), trace.span_id.end()}; }

TEST(ProviderTraceTest, ModelsAreAskedForTheCallersTrace) {
  const Collector collector;
  const Provider provider({Ok("text/event-stream",
                              "data: {\"choices\":[{\"delta\":{\"content\":\"Hi.\"},"
                              "\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")});
  LlmGatewayConfig config;
  config.common.trace_endpoint = collector.url();
  config.openai.base_url = provider.url();
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", config, llm_gateway::Run);
  const TraceContext given = TraceContext::Root();
  llm::v1::ChatRequest request;
  request.mutable_context()->set_traceparent(given.Traceparent());
  request.add_models()->set_engine("openai");
  request.mutable_models(0)->set_model("m");
  request.add_items()->mutable_message()->set_role("user");
  auto call = gateway.Call();
  auto reader =
      llm::v1::LanguageModelService::NewStub(gateway.channel())->Chat(call.get(), request);
  llm::v1::ChatResponse response;
  while (reader->Read(&response)) {
  }
  ASSERT_TRUE(reader->Finish().ok());
  const Span chat = collector.Named("chat"), asked = collector.Named("ask a model");
  EXPECT_EQ(chat.parent_span_id(), IdOf(given));
  EXPECT_EQ(asked.parent_span_id(), chat.span_id());
  ExpectAskedFor(provider, asked, given);
}

TEST(ProviderTraceTest, VoicesAreAskedForTheCallersTrace) {
  const Collector collector;
  const Provider provider({Ok("audio/pcm", std::string(9600, 1))});
  TtsGatewayConfig config;
  config.common.trace_endpoint = collector.url();
  config.openai.base_url = provider.url();
  config.openai.model = "voice-1";
  config.openai_voice = "anna";
  RunningGateway<TtsGatewayConfig> gateway("tts-gateway", config, tts_gateway::Run);
  const TraceContext given = TraceContext::Root();
  speech::v1::SynthesizeRequest request;
  request.mutable_config()->mutable_context()->set_traceparent(given.Traceparent());
  request.mutable_config()->set_sample_rate_hz(24000);
  request.mutable_config()->add_voices()->set_engine("openai");
  auto call = gateway.Call();
  auto stub = speech::v1::TextToSpeechService::NewStub(gateway.channel());
  auto stream = stub->Synthesize(call.get());
  stream->Write(request);
  request.set_text("Good day.");
  stream->Write(request);
  stream->WritesDone();
  speech::v1::SynthesizeResponse response;
  while (stream->Read(&response)) {
  }
  ASSERT_TRUE(stream->Finish().ok());
  const Span spoken = collector.Named("speak");
  EXPECT_EQ(spoken.parent_span_id(), IdOf(given));
  ExpectAskedFor(provider, spoken, given);
}

TEST(ProviderTraceTest, RecognisersAreAskedForTheCallersTrace) {
  const Collector collector;
  const Provider provider({Ok("application/json", R"({"text": "a double room"})")});
  SttGatewayConfig config;
  config.common.trace_endpoint = collector.url();
  config.decoder = std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-stt-decoder";
  config.preload = false;
  config.openai.base_url = provider.url();
  config.openai.model = "ear-1";
  RunningGateway<SttGatewayConfig> gateway("stt-gateway", config, stt_gateway::Run);
  const TraceContext given = TraceContext::Root();
  speech::v1::RecognizeRequest request;
  request.mutable_config()->mutable_context()->set_traceparent(given.Traceparent());
  request.mutable_config()->set_sample_rate_hz(16000);
  request.mutable_config()->add_engines()->set_engine("openai");
  auto call = gateway.Call();
  auto stub = speech::v1::SpeechToTextService::NewStub(gateway.channel());
  auto stream = stub->Recognize(call.get());
  stream->Write(request);
  request.set_audio(std::string(16000, 0));
  stream->Write(request);
  request.mutable_end_utterance()->set_utterance(1);
  stream->Write(request);
  stream->WritesDone();
  speech::v1::RecognizeResponse response;
  while (stream->Read(&response)) {
  }
  ASSERT_TRUE(stream->Finish().ok());
  const Span heard = collector.Named("final transcript");
  EXPECT_EQ(heard.parent_span_id(), IdOf(given));
  ExpectAskedFor(provider, heard, given);
}

}  // namespace
}  // namespace parley
