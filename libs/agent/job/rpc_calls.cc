#include "agent/job/rpc_calls.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"

namespace parley::agent {
namespace {

namespace roomv1 = parley::room::v1;

constexpr int64_t kAckUs = 7'000'000;  // as LiveKit's SDKs
constexpr size_t kMaxAnswerBytes = size_t{64} * 1024;
constexpr size_t kMaxMessageBytes = 256;
constexpr uint32_t kNoSuchMethod = 1400;
constexpr uint32_t kMethodFailed = 1500;
constexpr uint32_t kNoReaction = 1501;
constexpr uint32_t kNoAnswer = 1502;
constexpr uint32_t kAnswerTooLarge = 1504;

absl::Status RpcError(uint32_t code, std::string_view message, std::string_view data = {}) {
  absl::StatusCode canonical = absl::StatusCode::kUnknown;
  if (code == kNoSuchMethod || code == 1401) canonical = absl::StatusCode::kNotFound;
  if (code == kNoReaction || code == kNoAnswer) canonical = absl::StatusCode::kDeadlineExceeded;
  return WithReason(Error(canonical, "{}", message), "RPC_ERROR",
                    {{"code", std::to_string(code)}, {"data", std::string(data)}});
}

uint32_t CodeOf(const absl::Status& status) {
  const ErrorReason reason = ReasonOf(status);
  const auto found = reason.metadata.find("code");
  uint32_t code = kMethodFailed;
  if (found != reason.metadata.end()) {
    const std::string& text = found->second;
    std::from_chars(text.data(), text.data() + text.size(), code);
  }
  return code;
}

}  // namespace

RpcCalls::RpcCalls(event::Loop& loop, std::shared_ptr<Mailbox> mailbox, std::string prefix,
                   std::function<void(const roomv1::RpcPacket&)> send)
    : loop_(loop),
      mailbox_(std::move(mailbox)),
      prefix_(std::move(prefix)),
      send_(std::move(send)),
      timer_(loop) {}

RpcCalls::~RpcCalls() { *self_ = nullptr; }

void RpcCalls::Perform(std::string identity, std::string method, std::string payload,
                       absl::Duration timeout, Done done) {
  if (waiting_.size() >= kMaxWaiting) {
    return done(ResourceExhausted("{} calls wait for their answers", kMaxWaiting));
  }
  const int64_t now_us = loop_.NowMicros();
  const int64_t timeout_us =
      std::clamp<int64_t>(absl::ToInt64Microseconds(timeout), 1'000, int64_t{86'400} * 1'000'000);
  const std::string id = prefix_ + std::to_string(++requests_);
  waiting_[id] = {
      .done = std::move(done), .ack_by_us = now_us + kAckUs, .answer_by_us = now_us + timeout_us};
  roomv1::RpcPacket packet;
  packet.set_request_id(id);
  packet.set_destination_identity(std::move(identity));
  packet.mutable_request()->set_method(std::move(method));
  packet.mutable_request()->set_payload(std::move(payload));
  packet.mutable_request()->set_response_timeout_ms(static_cast<uint32_t>(timeout_us / 1000));
  send_(packet);
  Arm();
}

void RpcCalls::Register(std::string method, JobContext::RpcHandler handler) {
  if (handler == nullptr) {
    methods_.erase(method);
  } else {
    methods_[std::move(method)] = std::move(handler);
  }
}

void RpcCalls::OnPacket(const roomv1::RpcPacket& packet) {
  switch (packet.step_case()) {
    case roomv1::RpcPacket::kRequest:
      return OnRequest(packet);
    case roomv1::RpcPacket::kAck:
      if (const auto found = waiting_.find(packet.request_id()); found != waiting_.end())
        found->second.ack_by_us = 0;
      return;
    case roomv1::RpcPacket::kResponse:
      return OnResponse(packet);
    default:
      return;
  }
}

void RpcCalls::OnRequest(const roomv1::RpcPacket& packet) {
  roomv1::RpcPacket ack;
  ack.set_request_id(packet.request_id());
  ack.set_destination_identity(packet.from_identity());
  ack.mutable_ack();
  send_(ack);
  const auto method = methods_.find(packet.request().method());
  if (method == methods_.end()) {
    return Answer(packet, RpcError(kNoSuchMethod, "Method not supported at destination"));
  }
  if (running_ >= kMaxRunning) {
    return Answer(packet, RpcError(kMethodFailed, "too many calls at a time"));
  }
  ++running_;
  // The program's own code: it may block.
  std::thread([run = method->second, packet, mailbox = mailbox_, self = self_] {
    absl::StatusOr<std::string> result = absl::InternalError("");
    try {
      result = run(packet.from_identity(), packet.request().payload());
    } catch (const std::exception& error) {
      result = Internal("Application error in method handler");
    }
    mailbox->Post([self, packet, result = std::move(result)] {
      if (*self == nullptr) return;
      --(*self)->running_;
      (*self)->Answer(packet, result);
    });
  }).detach();
}

void RpcCalls::Answer(const roomv1::RpcPacket& request, const absl::StatusOr<std::string>& result) {
  roomv1::RpcPacket packet;
  packet.set_request_id(request.request_id());
  packet.set_destination_identity(request.from_identity());
  roomv1::RpcResponse& response = *packet.mutable_response();
  if (result.ok() && result->size() <= kMaxAnswerBytes) {
    response.set_payload(*result);
  } else if (result.ok()) {
    response.mutable_error()->set_code(kAnswerTooLarge);
    response.mutable_error()->set_message("Response payload too large");
  } else {
    const ErrorReason reason = ReasonOf(result.status());
    response.mutable_error()->set_code(CodeOf(result.status()));
    response.mutable_error()->set_message(
        std::string(Message(result.status()).substr(0, kMaxMessageBytes)));
    if (const auto data = reason.metadata.find("data"); data != reason.metadata.end())
      response.mutable_error()->set_data(data->second);
  }
  send_(packet);
}

void RpcCalls::OnResponse(const roomv1::RpcPacket& packet) {
  const auto found = waiting_.find(packet.request_id());
  if (found == waiting_.end()) return;  // too late
  const Done done = std::move(found->second.done);
  waiting_.erase(found);
  const roomv1::RpcResponse& response = packet.response();
  if (!response.has_error()) return done(response.payload());
  done(RpcError(response.error().code(), response.error().message(), response.error().data()));
}

// Who does not react, or does not answer?
void RpcCalls::Look() {
  const int64_t now_us = loop_.NowMicros();
  std::vector<std::pair<Done, absl::Status>> over;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Waiting& one = it->second;
    const bool silent = one.ack_by_us != 0 && now_us >= one.ack_by_us;
    if (!silent && now_us < one.answer_by_us) {
      ++it;
      continue;
    }
    over.emplace_back(std::move(one.done), silent ? RpcError(kNoReaction, "Connection timeout")
                                                  : RpcError(kNoAnswer, "Response timeout"));
    it = waiting_.erase(it);
  }
  for (const auto& [done, status] : over) done(status);
  Arm();
}

void RpcCalls::Arm() {
  if (waiting_.empty()) return timer_.Stop();
  int64_t next_us = INT64_MAX;
  for (const auto& [id, one] : waiting_) {
    next_us = std::min(next_us, one.answer_by_us);
    if (one.ack_by_us != 0) next_us = std::min(next_us, one.ack_by_us);
  }
  timer_.StartOnce(absl::Microseconds(std::max<int64_t>(next_us - loop_.NowMicros(), 0)),
                   [this] { Look(); });
}

}  // namespace parley::agent
