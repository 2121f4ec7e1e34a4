#include "api_server/livekit/workers.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>

#include "base/status.h"
#include "rpc/channel.h"

namespace parley::api_server {
namespace {

constexpr auto kPath = "/agent";
constexpr absl::Duration kSweep = absl::Milliseconds(250);
constexpr absl::Duration kLastCall = absl::Seconds(8);  // longer than a side takes to leave
// A worker that is cut off is noticed before its jobs' lease of 12 s would be over, were it not for
// us.
constexpr absl::Duration kPing = absl::Seconds(4);
constexpr absl::Duration kSilence = absl::Seconds(11);

absl::StatusOr<auth::Claims> Caller(const Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, Authenticate(backend, request));
  PARLEY_RETURN_IF_ERROR(auth::RequireWorker(claims));
  // Its own key speaks for it at the broker.
  if (claims.issuer.empty()) return Unauthenticated("a worker needs a token of an API key");
  return claims;
}

}  // namespace

LivekitMetrics::LivekitMetrics(prometheus::Registry& registry)
    : workers(metrics::Gauge(registry, "parley_livekit_workers",
                             "LiveKit workers registered over /agent")),
      registrations(metrics::Counter(registry, "parley_livekit_registrations_total",
                                     "Registrations of LiveKit workers")),
      refused(metrics::Counter(registry, "parley_livekit_workers_refused_total",
                               "LiveKit workers refused, or closed for what they sent")),
      kept(metrics::Counter(registry, "parley_livekit_jobs_kept_total",
                            "Jobs that a LiveKit worker kept over a reconnect")) {}

LivekitWorkers::LivekitWorkers(Backend& backend)
    : backend_(backend),
      metrics_(backend.context.registry()),
      loop_(std::make_shared<event::Loop>()),
      channel_(rpc::MakeChannel(backend.config.dispatch_address)),
      sweeper_(std::make_unique<event::Timer>(*loop_)),
      last_call_(std::make_unique<event::Timer>(*loop_)) {
  sweeper_->StartRepeating(kSweep, [this] { Sweep(); });
  thread_ = std::thread([this] { loop_->Run(); });
}

LivekitWorkers::~LivekitWorkers() { Stop(); }

void LivekitWorkers::Serve(http::Server& server) {
  http::WebSocketOptions options;
  options.ping = kPing;
  options.silence = kSilence;
  options.refuse = [this](const http::Request& request) -> std::optional<http::Response> {
    const auto caller = Caller(backend_, request);
    if (caller.ok()) return std::nullopt;
    metrics_.refused.Increment();
    return http::Response{401, "text/plain", std::string(Message(caller.status())), {}};
  };
  server.HandleWebSocket(
      kPath,
      [this](const http::Request& request, const std::shared_ptr<http::WebSocket>& socket)
          -> std::shared_ptr<http::WebSocketListener> {
        auto caller = Caller(backend_, request);
        if (!caller.ok()) return nullptr;
        auto connection =
            std::make_shared<WorkerConnection>(*this, *std::move(caller), request.peer, socket);
        loop_->Post([this, connection] {
          connections_.insert(connection);
          connection->Open(loop_->NowMicros());
        });
        return connection;
      },
      std::move(options));
  // Without an upgrade there is nothing here, as LiveKit's servers have it.
  server.HandleInline("GET", kPath, [](const http::Request&) {
    return http::Response{404, "text/plain", "", {}};
  });
}

std::string LivekitWorkers::InstanceOf(std::string_view worker_id) const {
  const std::string text = fmt::format("livekit worker {}", worker_id);
  const std::string& key = backend_.context.keys()->cluster_key();
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(), &size);
  std::string hex;
  for (unsigned int i = 0; i < 16 && i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

void LivekitWorkers::Forget(const std::shared_ptr<WorkerConnection>& connection) {
  connections_.erase(connection);
  StopIfDone();
}

void LivekitWorkers::Part(const std::shared_ptr<BrokerSide>& side) {
  parting_.insert(side);
  side->Leave([this, weak = std::weak_ptr(side)] {
    parting_.erase(weak.lock());
    StopIfDone();
  });
}

void LivekitWorkers::Sweep() {
  const int64_t now_us = loop_->NowMicros();
  double registered = 0;
  for (const auto& connection : connections_) {
    connection->Sweep(now_us);
    registered += connection->registered() ? 1 : 0;
  }
  metrics_.workers.Set(registered);
}

void LivekitWorkers::StopIfDone() {
  if (stopping_ && connections_.empty() && parting_.empty()) loop_->Stop();
}

void LivekitWorkers::Stop() {
  if (!thread_.joinable()) return;
  loop_->Post([this] {
    stopping_ = true;
    last_call_->StartOnce(kLastCall, [this] { loop_->Stop(); });
    StopIfDone();
  });
  thread_.join();
  connections_.clear();
  parting_.clear();
  sweeper_.reset();
  last_call_.reset();
}

}  // namespace parley::api_server
