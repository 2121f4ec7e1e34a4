#include "dispatch_broker/webhooks.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "auth/webhook.h"
#include "base/status.h"
#include "job_redis/keys.h"

namespace parley::dispatch_broker {
namespace {

using nlohmann::json;

constexpr int kBatch = 100;
constexpr absl::Duration kLongestRetry = absl::Seconds(30);
// Others' leases are tried again, and those of dead brokers taken over, this often.
constexpr absl::Duration kLookAgain = absl::Seconds(1);

// The name that LiveKit's receivers know; "" for what is not told.
std::string_view NameOf(const job::Event& event) {
  if (event.type == "job_running") return "agent_job_started";
  if (event.type == "job_succeeded" || event.type == "job_failed" ||
      event.type == "job_cancelled") {
    return "agent_job_ended";
  }
  static constexpr std::string_view kAsTheyAre[] = {"dispatch_created",   "dispatch_ended",
                                                    "room_started",       "room_finished",
                                                    "participant_joined", "participant_left"};
  const auto* const found = std::find(std::begin(kAsTheyAre), std::end(kAsTheyAre), event.type);
  return found == std::end(kAsTheyAre) ? std::string_view() : *found;
}

std::string Digest(std::string_view text, size_t characters) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr);
  std::string hex;
  for (size_t i = 0; i < size && hex.size() < characters; ++i) {
    hex += fmt::format("{:02x}", digest[i]);
  }
  return hex;
}

// LiveKit's receivers read `job.state` as their JobState, some of them strictly.
std::string_view LiveKitStatus(const job::Event& event) {
  switch (event.state) {
    case job::State::kRunning:
      return "JS_RUNNING";
    case job::State::kSucceeded:
    case job::State::kCancelled:
      return "JS_SUCCESS";
    case job::State::kFailed:
      return event.reason == job::Reason::kRejected ? "JS_SUCCESS" : "JS_FAILED";
    default:
      return "JS_PENDING";
  }
}

const auth::ApiKey* KeyOf(const auth::KeyRing& ring, const std::string& project) {
  for (const auth::ApiKey& key : ring.keys()) {
    if (key.project == project) return &key;
  }
  return nullptr;
}

}  // namespace

std::string WebhookBody(const job::Event& event, const job::Dispatch* dispatch) {
  const std::string_view name = NameOf(event);
  if (name.empty()) return {};
  json body = {{"event", name},
               // The same however often it is told.
               {"id", "EV_" + Digest(event.pool + "\n" + event.position, 16)},
               {"createdAt", std::to_string(absl::ToUnixSeconds(event.time))},
               {"room", {{"name", event.room}}}};
  if (!event.room_sid.empty()) body["room"]["sid"] = event.room_sid;
  if (!event.participant_identity.empty()) {
    body["participant"] = {{"identity", event.participant_identity}};
  }
  if (!event.dispatch_id.empty()) {
    body["dispatch"] = {{"id", event.dispatch_id}, {"agentName", event.agent_name}};
  }
  if (dispatch != nullptr) {
    body["dispatch"]["metadata"] = dispatch->metadata;
    body["dispatch"]["attributes"] = dispatch->attributes;
  }
  if (!event.job_id.empty()) {
    body["job"] = {{"id", event.job_id}, {"dispatchId", event.dispatch_id}};
    if (event.state != job::State::kUnspecified) {
      body["job"]["state"] = {{"status", LiveKitStatus(event)}, {"workerId", event.worker_id}};
      body["job"]["parleyState"] = job::Text(event.state);
    }
    if (event.reason != job::Reason::kUnspecified) body["job"]["reason"] = job::Text(event.reason);
    if (event.attempt > 0) body["job"]["attempt"] = event.attempt;
  }
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

Webhooks::Webhooks(WebhookOptions options, Broker& broker, job::WebhookCursors& cursors)
    : options_(std::move(options)), broker_(broker), cursors_(cursors) {}

Webhooks::~Webhooks() { Stop(); }

void Webhooks::Start() {
  for (const std::string& url : options_.urls) {
    threads_.emplace_back([this, url] { Serve(url); });
  }
}

void Webhooks::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Webhooks::OnEvents(const std::vector<std::string>&) {
  MutexLock lock(&mutex_);
  ++news_;
  wake_.SignalAll();
}

bool Webhooks::Wait(absl::Duration at_most, uint64_t* seen) {
  const int64_t until_us = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(at_most);
  MutexLock lock(&mutex_);
  while (!stopping_ && (seen == nullptr || *seen == news_)) {
    const int64_t left_us = until_us - Clock::Real().MonotonicMicros();
    if (left_us <= 0) break;
    wake_.WaitFor(&mutex_, absl::Microseconds(left_us));
  }
  if (seen != nullptr) *seen = news_;
  return !stopping_;
}

void Webhooks::Serve(const std::string& url) {
  const std::string webhook = Digest(url, 16);
  uint64_t seen = 0;
  // Of pools that are here already a new webhook hears what comes; of later ones everything.
  auto old_pools = broker_.store().Pools();
  while (!old_pools.ok()) {
    if (!Wait(kLookAgain, nullptr)) return;
    old_pools = broker_.store().Pools();
  }
  const std::set<std::string> old(old_pools->begin(), old_pools->end());
  do {
    for (const std::string& pool : broker_.KnownPools()) {
      const absl::Status status = TellPool(url, webhook, pool, old.contains(pool));
      if (!status.ok() && !absl::IsUnavailable(status)) {
        broker_.context().log().Error("webhook stands still",
                                      {{"pool", pool}, {"error", Message(status)}});
      }
      if (!Wait(absl::ZeroDuration(), nullptr)) break;
    }
    for (const std::string& pool : RoomPools()) {
      const absl::Status status = TellPool(url, webhook, pool, true);
      if (!status.ok() && !absl::IsUnavailable(status)) {
        broker_.context().log().Error("webhook stands still", {{"error", Message(status)}});
      }
      if (!Wait(absl::ZeroDuration(), nullptr)) break;
    }
  } while (Wait(kLookAgain, &seen));
  for (const std::string& pool : broker_.KnownPools()) (void)cursors_.Release(pool, webhook);
  for (const std::string& pool : RoomPools()) (void)cursors_.Release(pool, webhook);
}

// Of the projects that can be told, since somebody can sign for them.
std::set<std::string> Webhooks::RoomPools() const {
  std::set<std::string> pools;
  for (const auth::ApiKey& key : broker_.context().keys()->keys()) {
    pools.insert(job::keys::RoomsPool(key.project));
  }
  return pools;
}

absl::Status Webhooks::TellPool(const std::string& url, const std::string& webhook,
                                const std::string& pool, bool from_now) {
  std::string start = "0-0";
  if (from_now) {
    PARLEY_ASSIGN_OR_RETURN(start, broker_.store().LastEvent(pool));
  }
  PARLEY_ASSIGN_OR_RETURN(const std::optional<std::string> taken,
                          cursors_.Take(pool, webhook, start));
  if (!taken) return absl::OkStatus();
  std::string position = *taken;
  while (true) {
    PARLEY_ASSIGN_OR_RETURN(const job::JobStore::EventBatch batch,
                            broker_.store().ReadEvents(pool, position, kBatch));
    if (batch.events.empty()) return absl::OkStatus();
    for (const job::Event& event : batch.events) {
      PARLEY_ASSIGN_OR_RETURN(const bool ours, TellEvent(url, webhook, event, position));
      if (!ours) return absl::OkStatus();
      position = event.position;
    }
    PARLEY_ASSIGN_OR_RETURN(const bool ours, cursors_.Advance(pool, webhook, position));
    if (!ours) return absl::OkStatus();
  }
}

absl::StatusOr<bool> Webhooks::TellEvent(const std::string& url, const std::string& webhook,
                                         const job::Event& event, const std::string& before) {
  std::string body = WebhookBody(event, nullptr);
  if (body.empty()) return true;
  if (options_.metadata && !event.dispatch_id.empty()) {
    const auto dispatch = broker_.store().GetDispatch(event.dispatch_id);
    if (dispatch.ok()) body = WebhookBody(event, &*dispatch);
  }
  absl::Duration retry = options_.first_retry;
  for (int attempt = 1; attempt <= options_.attempts; ++attempt) {
    // The lease must outlast the request: it is renewed before each.
    PARLEY_ASSIGN_OR_RETURN(const bool ours, cursors_.Advance(event.pool, webhook, before));
    if (!ours) return false;
    if (Post(url, event, body)) return cursors_.Advance(event.pool, webhook, event.position);
    if (attempt == options_.attempts) break;
    broker_.metrics().webhook_retries.Increment();
    for (absl::Duration left = retry; left > absl::ZeroDuration(); left -= kLookAgain) {
      if (!Wait(std::min(left, kLookAgain), nullptr)) return false;
      PARLEY_RETURN_IF_ERROR(cursors_.Advance(event.pool, webhook, before).status());
    }
    retry = std::min(retry * 2, kLongestRetry);
  }
  broker_.metrics().webhooks_dropped.Increment();
  broker_.context().log().Warn("webhook event dropped: nobody took it", {{"event", event.type}});
  return cursors_.Advance(event.pool, webhook, event.position);
}

// One try. What can never be signed counts as told.
bool Webhooks::Post(const std::string& url, const job::Event& event, const std::string& body) {
  const auto ring = broker_.context().keys();
  const auth::ApiKey* key = KeyOf(*ring, event.project);
  if (key == nullptr) {
    broker_.metrics().webhooks_dropped.Increment();
    return true;
  }
  http::Call call;
  call.method = "POST";
  call.url = url;
  call.headers = {{"authorization", auth::SignWebhook(body, *key)},
                  {"content-type", "application/webhook+json"}};
  call.body = body;
  call.timeout = options_.timeout;
  call.connect_timeout = options_.timeout;
  call.max_response_bytes = 64 << 10;
  call.reach = http::Reach::kAny;  // the operator's own URL
  const absl::StatusOr<http::Reply> reply = client_.Fetch(call, [this] {
    MutexLock lock(&mutex_);
    return stopping_;
  });
  const bool told = reply.ok() && reply->status / 100 == 2;
  if (told) broker_.metrics().webhooks_sent.Increment();
  return told;
}

}  // namespace parley::dispatch_broker
