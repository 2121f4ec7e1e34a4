#include "api_server/api_server.h"

#include <charconv>

#include "api_server/livekit/attachments.h"
#include "api_server/livekit/workers.h"
#include "api_server/routes.h"
#include "api_server/signalling.h"
#include "base/status.h"
#include "http/server.h"
#include "metrics/metrics.h"
#include "rpc/channel.h"

namespace parley {

void ApiServerConfig::Bind(config::Table& table) {
  common.admin_port = 9080;
  common.Bind(table, 7106);  // gRPC: health and reflection alone
  table.List("http.ports", &http_ports,
             "HTTP ports; all serve the same routes; 0 picks a free one");
  table.Text("registry.address", &registry_address, "Agent registry, host:port");
  table.Text("dispatch.address", &dispatch_address, "Dispatch broker, host:port");
  table.Text("rooms.address", &rooms_address, "Room server, host:port");
  table.Text("stt.address", &stt_address, "Speech-to-text gateway, host:port");
  table.Text("tts.address", &tts_address, "Text-to-speech gateway, host:port");
  table.Text("llm.address", &llm_address, "Model gateway, host:port");
  table.Text("http.certificate", &http_certificate,
             "PEM file of the certificate chain that the HTTP ports show; none: plain HTTP. It and "
             "its key are read again when they change");
  table.Text("http.key", &http_key, "PEM file of that certificate's key");
  table.Text("public_url", &public_url,
             "URL that clients connect to; default ws://ADDRESS:LAST_HTTP_PORT");
  table.AlsoFromEnv("LIVEKIT_URL");
  table.Duration("token.ttl", &token_ttl, absl::Minutes(1), absl::Hours(24),
                 "Life of the participant tokens that are given out");
  table.List("open.agents", &open_agents,
             "Agents that connection-details gives tokens for without a bearer token");
  table.List("open.origins", &open_origins, "… to pages of these origins only");
  table.Int(
      "livekit.worker_slots", &livekit_worker_slots, 1, 100'000,
      "Jobs at once of one LiveKit worker (/agent); below it the load that it reports counts");
  table.List("attach.files", &attach_files,
             "Files that name other LiveKit servers whose jobs our agents take");
  table.List("open.sandboxes", &open_sandboxes, "… to callers that send one of these X-Sandbox-ID");
  table.List("open.rooms", &open_rooms,
             "Rooms that may be named there; * at the end stands for any rest");
  table.List("open.identities", &open_identities, "Identities that may be named there, likewise");
  table.List("open.attributes", &open_attributes,
             "Keys of participant attributes that may be set there, likewise");
  table.Int("token.rate_per_address", &token_rate_per_address, 0, 1'000'000,
            "connection-details a minute to one address without a bearer token; 0 is any number");
  table.Int("token.rate_per_key", &token_rate_per_key, 0, 10'000'000,
            "connection-details a minute to one API key or sandbox; 0 is any number");
  table.Bool("http.trust_forwarded_for", &trust_forwarded_for,
             "A proxy before this server sets X-Forwarded-For");
  table.Text("console.dir", &console_dir,
             "Folder of the console page; default ../share/parley/console beside the program");
  table.Int("v1.max_requests", &v1_requests, 1, 1024,
            "Requests to /v1 that may wait for a gateway at a time, each on a thread; others get "
            "429 with Retry-After. A streamed answer waits for its first word only");
  table.Bool("demo", &demo, "Serve /demo/room-rate/{room}, the tool of the front-desk example");
}

namespace api_server {
namespace {

struct ApiServerMetrics {
  explicit ApiServerMetrics(prometheus::Registry& registry) {
    static constexpr const char* kClasses[] = {"1xx", "2xx", "3xx", "4xx", "5xx"};
    for (size_t i = 0; i < std::size(kClasses); ++i) {
      requests[i] =
          &metrics::Counter(registry, "parley_api_requests_total",
                            "HTTP requests answered, by status class", {{"status", kClasses[i]}});
    }
    seconds = &metrics::Histogram(registry, "parley_api_request_seconds",
                                  "Time to answer an HTTP request");
  }
  void Count(int status, int64_t micros) {
    requests[std::clamp(status / 100, 1, 5) - 1]->Increment();
    seconds->Observe(static_cast<double>(micros) / 1e6);
  }
  prometheus::Counter* requests[5];  // parley_api_requests_total
  prometheus::Histogram* seconds;    // parley_api_request_seconds
};

// As `handler`, for the trace that the request names, or a new one.
http::Handler Traced(const trace::Tracer& tracer, const Route& route, http::Handler handler) {
  return [&tracer, name = route.method + " " + route.pattern,
          handler = std::move(handler)](const http::Request& request) {
    trace::Span span = tracer.Start(name, trace::Kind::kServer,
                                    TraceContext::Parse(request.Header("traceparent")));
    const TraceScope scope(span.context());
    http::Response response = handler(request);
    span.Set("http.response.status_code", int64_t{response.status});
    if (response.status >= 500) span.Fail("HTTP " + std::to_string(response.status));
    return response;
  };
}

// Prices of the front-desk example, so that its tool has something real to ask.
absl::StatusOr<http::Response> RoomRate(const http::Request& request) {
  static const std::map<std::string, int> kRates = {
      {"single", 80}, {"double", 120}, {"suite", 250}};
  const auto rate = kRates.find(request.params.at("room"));
  if (rate == kRates.end())
    return NotFound("there is no room type \"{}\"", request.params.at("room"));
  return JsonResponse({{"room", rate->first}, {"rate", rate->second}, {"currency", "EUR"}});
}

std::vector<Route> MakeRoutes(Backend& backend) {
  std::vector<Route> routes;
  AddAgentRoutes(backend, routes);
  AddSessionRoutes(backend, routes);
  AddDispatchRoutes(backend, routes);
  AddEventRoutes(backend, routes);
  AddTokenRoutes(backend, routes);
  AddSignalRoutes(backend, routes);
  AddSpeechRoutes(backend, routes);
  AddChatRoutes(backend, routes);
  AddUsageRoutes(backend, routes);
  AddLiveKitRoutes(backend, routes);
  AddSummaryRoutes(backend, routes);
  AddConsoleRoutes(backend, routes);
  routes.push_back({"GET", "/healthz", "The process lives", "", nullptr, 200,
                    [](const http::Request&) {
                      return http::Response{200, "text/plain", "ok\n", {}};
                    },
                    true});
  routes.push_back({"GET", "/readyz", "May take traffic", "", nullptr, 200,
                    [&backend](const http::Request&) {
                      return backend.context.stop_requested()
                                 ? http::Response{503, "text/plain", "stopping\n", {}}
                                 : http::Response{200, "text/plain", "ready\n", {}};
                    },
                    true});
  if (backend.config.demo) {
    routes.push_back({"GET", "/demo/room-rate/{room}",
                      "Nightly rate of a room type: the tool of the front-desk example", "",
                      nullptr, 200,
                      [](const http::Request& request) { return Answer(RoomRate(request)); }});
  }
  // Describes every route, itself included.
  routes.push_back({"GET", "/openapi.json", "This description", "", nullptr, 200, nullptr});
  const Json document = OpenApi(routes);
  routes.back().handler = [document](const http::Request&) { return JsonResponse(document); };
  return routes;
}

absl::StatusOr<std::vector<int>> Ports(const std::vector<std::string>& texts) {
  std::vector<int> ports;
  for (const std::string& text : texts) {
    int port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size() || port < 0 || port > 65535) {
      return InvalidArgument("http.ports: \"{}\" is not a port", text);
    }
    ports.push_back(port);
  }
  if (ports.empty()) return InvalidArgument("http.ports: name at least one port");
  return ports;
}

}  // namespace

Backend::Backend(const ApiServerConfig& c, service::Context& ctx)
    : config(c),
      context(ctx),
      registry(registry::v1::AgentRegistryService::NewStub(rpc::MakeChannel(c.registry_address))),
      dispatch(dispatch::v1::DispatchService::NewStub(rpc::MakeChannel(c.dispatch_address))),
      rooms(room::v1::RoomService::NewStub(rpc::MakeChannel(c.rooms_address))),
      stt(speech::v1::SpeechToTextService::NewStub(rpc::MakeChannel(c.stt_address))),
      tts(speech::v1::TextToSpeechService::NewStub(rpc::MakeChannel(c.tts_address))),
      llm(llm::v1::LanguageModelService::NewStub(rpc::MakeChannel(c.llm_address))) {
  for (const auto& [kind, address] :
       {std::pair{"stt", c.stt_address}, {"tts", c.tts_address}, {"llm", c.llm_address}}) {
    usage[kind] = speech::v1::UsageService::NewStub(rpc::MakeChannel(address));
  }
}

int Run(const ApiServerConfig& given, service::Context& context) {
  ApiServerConfig config = given;
  http::ServerOptions options;
  options.address = config.common.address;
  options.certificate = config.http_certificate;
  options.key = config.http_key;
  absl::StatusOr<std::vector<int>> ports = Ports(config.http_ports);
  if (!ports.ok()) return service::FailStart("api-server", ports.status());
  options.ports = *ports;
  ApiServerMetrics metrics(context.registry());
  Backend backend(config, context);
  LivekitWorkers workers(backend);  // outlives the server that it hears from
  AttachMetrics attach_metrics(context.registry());
  auto attachments = Attachments::Start(backend, attach_metrics, config.attach_files);
  if (!attachments.ok()) return service::FailStart("api-server", attachments.status());
  http::Server server(options, context.executor(), context.log());
  for (Route& route : MakeRoutes(backend)) {
    http::Handler counted = [&context, &metrics,
                             handler = std::move(route.handler)](const http::Request& r) {
      const int64_t start = context.clock().MonotonicMicros();
      http::Response response = handler(r);
      metrics.Count(response.status, context.clock().MonotonicMicros() - start);
      return response;
    };
    if (route.inline_run) {
      server.HandleInline(route.method, route.pattern, std::move(counted));
    } else {
      server.Handle(route.method, route.pattern,
                    Traced(context.tracer(), route, std::move(counted)));
    }
  }
  ServeSignalling(backend, server);
  workers.Serve(server);
  server.HandleUnknown([](const http::Request& request) {
    return ErrorResponse(NotFound("there is nothing at {} {}; GET /openapi.json lists what is",
                                  request.method, request.path));
  });
  if (absl::Status status = server.Start(); !status.ok())
    return service::FailStart("api-server", status);
  const int last_port = server.port(options.ports.size() - 1);
  if (config.public_url.empty())
    config.public_url = fmt::format("{}://{}:{}", config.http_certificate.empty() ? "ws" : "wss",
                                    config.common.address, last_port);
  context.log().Info("listening", {{"http_port", server.port(0)}, {"livekit_port", last_port}});
  service::Context::Hooks hooks;
  hooks.drain = [&](absl::Duration grace) {
    server.Stop(grace);
    workers.Stop();
    if (*attachments != nullptr) (*attachments)->Stop();
  };
  return context.Serve({}, hooks);
}

}  // namespace api_server
}  // namespace parley
