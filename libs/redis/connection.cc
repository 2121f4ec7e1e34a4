#include "redis/connection.h"

#include <hiredis/hiredis.h>
#include <poll.h>

#include <algorithm>
#include <charconv>

#include "base/status.h"

namespace parley::redis {
namespace {

Reply FromHiredis(const redisReply& reply) {
  Reply out;
  switch (reply.type) {
    case REDIS_REPLY_NIL:
      break;
    case REDIS_REPLY_INTEGER:
      out.type = Reply::Type::kInteger;
      out.integer = reply.integer;
      break;
    case REDIS_REPLY_ARRAY:
      out.type = Reply::Type::kArray;
      out.elements.reserve(reply.elements);
      for (size_t i = 0; i < reply.elements; ++i) {
        out.elements.push_back(FromHiredis(*reply.element[i]));
      }
      break;
    case REDIS_REPLY_STRING:
      out.type = Reply::Type::kString;
      out.text.assign(reply.str, static_cast<size_t>(reply.len));
      break;
    default:  // a status, or an error inside an array
      out.type = Reply::Type::kStatus;
      out.text.assign(reply.str, static_cast<size_t>(reply.len));
  }
  return out;
}

template <size_t N>
bool IsOneOf(std::string_view reason, const std::string_view (&list)[N]) {
  return std::find(std::begin(list), std::end(list), reason) != std::end(list);
}

// What the server refuses for a reason that passes by itself.
bool IsPassing(std::string_view reason) {
  static constexpr std::string_view kPassing[] = {"LOADING",     "MASTERDOWN", "READONLY",
                                                  "CLUSTERDOWN", "TRYAGAIN",   "BUSY",
                                                  "NOREPLICAS",  "MISCONF",    "UNBLOCKED"};
  return IsOneOf(reason, kPassing);
}

// What a server says that is no master any more, or is cut off from its replicas.
bool IsDeposed(const absl::Status& status) {
  static constexpr std::string_view kDeposed[] = {"READONLY", "MASTERDOWN", "NOREPLICAS",
                                                  "UNBLOCKED"};
  return absl::IsUnavailable(status) && IsOneOf(ReasonOf(status).reason, kDeposed);
}

absl::Status FromServerError(std::string_view text) {
  const std::string_view reason = text.substr(0, text.find(' '));
  absl::Status status = IsPassing(reason) ? Unavailable("Redis says: {}", text)
                                          : FailedPrecondition("Redis says: {}", text);
  return WithReason(std::move(status), reason);
}

}  // namespace

absl::StatusOr<Endpoint> ParseAddress(std::string_view address) {
  Endpoint endpoint;
  if (address.starts_with("unix:")) {
    endpoint.unix_path = address.substr(5);
    if (endpoint.unix_path.empty() || endpoint.unix_path.size() > 107) {
      return InvalidArgument("redis.address: the path of a unix socket has 1 to 107 bytes: \"{}\"",
                             address);
    }
    return endpoint;
  }
  const size_t colon = address.rfind(':');
  const std::string_view port = colon == address.npos ? "" : address.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
  if (error != std::errc() || end != port.data() + port.size() || colon == 0 || endpoint.port < 1 ||
      endpoint.port > 65535) {
    return InvalidArgument("redis.address: want host:port or unix:/path, not \"{}\"", address);
  }
  endpoint.host = address.substr(0, colon);
  if (endpoint.host.size() > 2 && endpoint.host.front() == '[' && endpoint.host.back() == ']') {
    endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
  }
  return endpoint;
}

Connection::Connection(const Config& config, MasterFinder& finder)
    : config_(config), finder_(finder) {}
Connection::~Connection() { Close(); }

void Connection::Close() {
  if (context_ != nullptr) redisFree(context_);
  context_ = nullptr;
}

absl::Status Connection::Failure(std::string_view what) {
  const std::string cause = context_ == nullptr ? "out of memory" : context_->errstr;
  Close();
  finder_.Lost(generation_);
  return Unavailable("{} Redis at {}: {}", what, config_.Where(), cause);
}

void Connection::SetTimeout(absl::Duration timeout) {
  if (timeout == timeout_) return;
  timeout_ = timeout;
  redisSetTimeout(context_, absl::ToTimeval(timeout));
}

absl::Status Connection::EnsureConnected(absl::Duration timeout) {
  if (context_ != nullptr && ClosedByPeer()) Close();
  PARLEY_ASSIGN_OR_RETURN(const MasterFinder::Master master, finder_.Find());
  if (master.generation != generation_) Close();
  if (context_ != nullptr) return absl::OkStatus();
  generation_ = master.generation;
  return Connect(master.address, timeout);
}

absl::Status Connection::Connect(const std::string& address, absl::Duration timeout) {
  PARLEY_ASSIGN_OR_RETURN(const Endpoint endpoint, ParseAddress(address));
  const timeval limit =
      absl::ToTimeval(std::max(std::min(timeout, config_.connect_timeout), absl::Milliseconds(1)));
  context_ = endpoint.unix_path.empty()
                 ? redisConnectWithTimeout(endpoint.host.c_str(), endpoint.port, limit)
                 : redisConnectUnixWithTimeout(endpoint.unix_path.c_str(), limit);
  if (context_ == nullptr || context_->err != 0) return Failure("cannot reach");
  timeout_ = absl::ZeroDuration();
  SetTimeout(timeout);
  PARLEY_RETURN_IF_ERROR(Authorise());
  return LearnRunId();
}

absl::StatusOr<Reply> Connection::Ask(const std::vector<std::string>& command) {
  Append(command);
  PARLEY_ASSIGN_OR_RETURN(absl::StatusOr<Reply> reply, ReadReply());
  if (reply.ok()) return reply;
  Close();
  return Annotate(reply.status(), command[0]);
}

absl::Status Connection::Authorise() {
  if (!config_.password.empty()) {
    PARLEY_RETURN_IF_ERROR(Ask({"AUTH", config_.password}).status());
  }
  if (config_.database == 0) return absl::OkStatus();
  return Ask({"SELECT", std::to_string(config_.database)}).status();
}

absl::Status Connection::LearnRunId() {
  PARLEY_ASSIGN_OR_RETURN(const Reply info, Ask({"INFO", "server"}));
  constexpr std::string_view kField = "run_id:";
  const size_t begin = info.text.find(kField);
  if (begin == std::string::npos) {
    Close();
    return Internal("Redis does not tell its run_id");
  }
  const size_t end = info.text.find('\r', begin);
  run_id_ = info.text.substr(begin + kField.size(), end - begin - kField.size());
  return absl::OkStatus();
}

void Connection::Append(const std::vector<std::string>& command) {
  std::vector<const char*> data;
  std::vector<size_t> sizes;
  data.reserve(command.size());
  sizes.reserve(command.size());
  for (const std::string& argument : command) {
    data.push_back(argument.data());
    sizes.push_back(argument.size());
  }
  redisAppendCommandArgv(context_, static_cast<int>(command.size()), data.data(), sizes.data());
}

absl::StatusOr<absl::StatusOr<Reply>> Connection::ReadReply() {
  void* raw = nullptr;
  if (redisGetReply(context_, &raw) != REDIS_OK) return Failure("lost");
  const std::unique_ptr<void, void (*)(void*)> reply(raw, &freeReplyObject);
  const auto& answer = *static_cast<const redisReply*>(raw);
  if (answer.type == REDIS_REPLY_ERROR) {
    return absl::StatusOr<Reply>(
        FromServerError(std::string_view(answer.str, static_cast<size_t>(answer.len))));
  }
  return absl::StatusOr<Reply>(FromHiredis(answer));
}

// An idle connection has nothing to read, unless the server hung up. Seeing that before a command
// is sent saves the caller an unknown outcome.
bool Connection::ClosedByPeer() const {
  pollfd descriptor{context_->fd, POLLIN, 0};
  return poll(&descriptor, 1, 0) != 0;
}

absl::StatusOr<std::vector<absl::StatusOr<Reply>>> Connection::Run(
    const std::vector<std::vector<std::string>>& commands, absl::Duration timeout,
    std::string_view server) {
  PARLEY_RETURN_IF_ERROR(EnsureConnected(timeout));
  if (!server.empty() && server != run_id_) {
    return WithReason(FailedPrecondition("another Redis process answers at {}", config_.Where()),
                      "SERVER_CHANGED");
  }
  SetTimeout(timeout);
  for (const auto& command : commands) Append(command);
  std::vector<absl::StatusOr<Reply>> replies;
  replies.reserve(commands.size());
  bool deposed = false;
  for (size_t i = 0; i < commands.size(); ++i) {
    PARLEY_ASSIGN_OR_RETURN(absl::StatusOr<Reply> reply, ReadReply());
    deposed = deposed || IsDeposed(reply.status());
    replies.push_back(std::move(reply));
  }
  if (deposed) {
    Close();
    finder_.Lost(generation_);
  }
  return replies;
}

}  // namespace parley::redis
