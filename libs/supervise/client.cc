#include <string>

#include "base/status.h"
#include "supervise/wire.h"
#include "supervise/zygote.h"

namespace parley::supervise {
namespace {

constexpr size_t kMaxNotice = size_t{64} * 1024;

Ready ReadyFrom(const std::string& body) {
  Ready event;
  const size_t border = body.find('\0');
  const std::string error = body.substr(0, border);
  if (!error.empty()) event.status = FailedPrecondition("{}", error);
  if (border != std::string::npos) event.no_cgroups = body.substr(border + 1);
  event.cgroups = event.no_cgroups.empty();
  return event;
}

JobForked ForkedFrom(wire::Message message) {
  JobForked event;
  wire::ForkedBody body{};
  if (!wire::ReadStruct(message.body, body)) {
    event.status = Internal("the zygote's answer is malformed");
    return event;
  }
  event.request = body.request;
  event.pid = body.pid;
  if (body.error != 0) {
    event.status =
        ResourceExhausted("cannot start a job process: {}", message.body.substr(sizeof(body)));
  } else if (message.fds.size() != 3) {
    event.status = ResourceExhausted(
        "cannot take the descriptors of a job process: raise the limit of open files (ulimit -n)");
  } else {
    event.socket = std::move(message.fds[0]);
    event.output = std::move(message.fds[1]);
    event.report = std::move(message.fds[2]);
  }
  return event;
}

JobExited ExitedFrom(const wire::Message& message) {
  wire::ExitedBody body{};
  wire::ReadStruct(message.body, body);
  JobExited event;
  event.pid = body.pid;
  event.exit_code = body.exit_code;
  event.signal = body.signal;
  event.core_dumped = body.core_dumped != 0;
  event.out_of_memory = body.out_of_memory != 0;
  event.cpu_seconds = static_cast<double>(body.cpu_us) / 1e6;
  event.max_rss_bytes = body.max_rss_bytes;
  return event;
}

}  // namespace

ZygoteClient::ZygoteClient(UniqueFd socket) : socket_(std::move(socket)) {}
ZygoteClient::~ZygoteClient() = default;

// The zygote always comes back to reading its socket, so a full one empties within a fork or two.
absl::Status ZygoteClient::Send(uint32_t kind, std::string_view body) {
  return wire::Send(socket_.get(), kind, body, {}, /*dont_wait=*/false);
}

absl::Status ZygoteClient::Start(std::string_view cgroups) { return Send(wire::kStart, cgroups); }

absl::Status ZygoteClient::Fork(uint64_t request, const JobLimits& limits) {
  wire::ForkBody body{};
  body.request = request;
  body.memory_bytes = limits.memory_bytes;
  body.cpu_seconds = limits.cpu_seconds;
  body.open_files = limits.open_files;
  body.network_none = limits.network == Network::kNone ? 1 : 0;
  body.report_refusals = limits.report_refusals ? 1 : 0;
  body.hide_memory = limits.hide_memory ? 1 : 0;
  return Send(wire::kFork, wire::BytesOf(body));
}

absl::Status ZygoteClient::Signal(pid_t pid, int signal) {
  return Send(wire::kSignal, wire::BytesOf(wire::SignalBody{pid, signal}));
}

absl::Status ZygoteClient::DumpStacks(pid_t pid) {
  return Send(wire::kStacks, wire::BytesOf(wire::StacksBody{pid}));
}

absl::Status ZygoteClient::SetDeathNotice(std::string_view flag, std::string_view input) {
  if (flag.size() + input.size() > kMaxNotice) {
    return InvalidArgument("a death notice of {} bytes; at most {} fit", input.size(), kMaxNotice);
  }
  std::string body(flag);
  body.push_back('\0');
  body.append(input);
  return Send(wire::kNotice, body);
}

absl::Status ZygoteClient::Leave() { return Send(wire::kLeave, {}); }

std::optional<Event> ZygoteClient::Next() {
  while (!gone_) {
    absl::StatusOr<wire::Message> message = wire::Receive(socket_.get());
    if (!message.ok()) {
      if (absl::IsUnavailable(message.status())) return std::nullopt;
      gone_ = true;
      return Event(ZygoteGone{});
    }
    switch (message->kind) {
      case wire::kReady:
        return Event(ReadyFrom(message->body));
      case wire::kForked:
        return Event(ForkedFrom(*std::move(message)));
      case wire::kExited:
        return Event(ExitedFrom(*message));
      default:
        break;
    }
  }
  return std::nullopt;
}

}  // namespace parley::supervise
