// MCP over streamable HTTP: each request is a POST, answered by JSON or by a stream of events.
#include <algorithm>
#include <optional>

#include "base/status.h"
#include "base/strings.h"
#include "http/sse.h"
#include "tools/mcp_session.h"

namespace parley::tools {
namespace {

constexpr int64_t kMaxAnswerBytes = 4 << 20;
constexpr char kSessionHeader[] = "mcp-session-id";

// Finds the answer to one request in the body of a reply, as it comes.
class AnswerReader {
 public:
  explicit AnswerReader(int64_t id) : id_(id) {}

  // False: it is there, or never will be.
  bool Append(std::string_view bytes) {
    if (!json_.has_value()) {
      const size_t first = bytes.find_first_not_of(" \r\n\t");
      if (first == std::string_view::npos) return true;
      json_ = bytes[first] == '{';
    }
    if (*json_) {
      body_ += bytes;
      return body_.size() <= static_cast<size_t>(kMaxAnswerBytes);
    }
    if (!events_.Append(bytes)) return false;
    while (std::optional<http::SseEvent> event = events_.Next()) {
      if (Take(event->data)) return false;
    }
    return true;
  }
  void End() {
    if (json_.value_or(false)) Take(body_);
  }
  std::optional<absl::StatusOr<std::string>> answer;

 private:
  bool Take(std::string_view text) {
    const absl::StatusOr<McpMessage> message = ReadMcpMessage(text);
    if (!message.ok() || message->id != id_) return false;
    if (message->kind == McpMessage::Kind::kAnswer) answer = message->result_json;
    if (message->kind == McpMessage::Kind::kError) {
      answer = FailedPrecondition("{}", message->error);
    }
    return answer.has_value();
  }

  const int64_t id_;
  std::optional<bool> json_;  // else events
  std::string body_;
  http::SseParser events_;
};

class HttpMcpServer final : public McpSession {
 public:
  HttpMcpServer(std::shared_ptr<http::Client> client, McpAddress address)
      : client_(std::move(client)), address_(std::move(address)) {}
  ~HttpMcpServer() override {
    if (session_id().empty()) return;
    http::Call call = MakeCall("", absl::Seconds(1));
    call.method = "DELETE";
    (void)client_->Fetch(call);  // it forgets sessions by itself, later
  }

 protected:
  absl::StatusOr<std::string> Exchange(int64_t id, const std::string& request, bool first,
                                       absl::Duration timeout,
                                       const std::function<bool()>& cancelled) override {
    if (timeout <= absl::ZeroDuration()) return DeadlineExceeded("no time is left");
    AnswerReader reader(id);
    // The session's name stands in the head of the first reply, which is there at its end.
    const absl::StatusOr<http::Reply> reply = client_->Stream(
        MakeCall(request, timeout),
        [&](std::string_view bytes) { return reader.Append(bytes) || first; }, cancelled);
    if (reply.ok()) {
      reader.End();
      if (reply->status == 404 && !first) {
        Reset();
        return Aborted("the MCP server has forgotten the session");
      }
      if (reply->status == 401 || reply->status == 403) {
        return PermissionDenied("the MCP server answered with status {}", reply->status);
      }
      if (reply->status < 200 || reply->status > 299) {
        return Unavailable("the MCP server answered with status {}", reply->status);
      }
    } else if (!reader.answer) {
      return reply.status();
    }
    if (!reader.answer) return Internal("the MCP server's answer is none");
    if (first) {
      MutexLock lock(&mutex_);
      connected_ = true;
      const auto named = reply->headers.find(kSessionHeader);
      session_id_ = named == reply->headers.end() ? "" : named->second;
    }
    return *std::move(reader.answer);
  }

  void Notify(const std::string& notification, absl::Duration timeout) override {
    (void)client_->Fetch(MakeCall(notification, std::max(timeout, absl::Milliseconds(100))));
  }
  void Reset() override {
    MutexLock lock(&mutex_);
    connected_ = false;
    session_id_.clear();
  }
  bool Connected() const override {
    MutexLock lock(&mutex_);
    return connected_;
  }

 private:
  std::string session_id() const {
    MutexLock lock(&mutex_);
    return session_id_;
  }
  http::Call MakeCall(const std::string& body, absl::Duration timeout) const {
    http::Call call;
    call.method = "POST";
    call.url = address_.url;
    call.headers.assign(address_.headers.begin(), address_.headers.end());
    call.headers.emplace_back("Content-Type", "application/json");
    call.headers.emplace_back("Accept", "application/json, text/event-stream");
    if (std::string id = session_id(); !id.empty()) {
      call.headers.emplace_back("Mcp-Session-Id", std::move(id));
    }
    if (Connected()) call.headers.emplace_back("MCP-Protocol-Version", protocol_version());
    call.body = body;
    call.timeout = timeout;
    call.max_response_bytes = kMaxAnswerBytes;
    call.reach = address_.reach;
    return call;
  }

  const std::shared_ptr<http::Client> client_;
  const McpAddress address_;
  mutable Mutex mutex_;
  bool connected_ ABSL_GUARDED_BY(mutex_) = false;
  std::string session_id_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<McpServer> NewHttpMcpServer(std::shared_ptr<http::Client> client,
                                            McpAddress address) {
  return std::make_unique<HttpMcpServer>(std::move(client), std::move(address));
}

}  // namespace parley::tools
