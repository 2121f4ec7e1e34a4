#pragma once
// A LiveKit worker's end of /agent that says what a test tells it: a WebSocket client of its own,
// so that it can be as wrong as it likes.
#include <arpa/inet.h>
#include <google/protobuf/util/json_util.h>
#include <parley/livekit/v1/agent.pb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "auth/token.h"

namespace parley::testing {

namespace lk = ::parley::livekit::v1;

// Not thread-safe: pings are answered while it waits for something.
class ScriptedWorker {
 public:
  enum Opcode { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };

  // `address`: "127.0.0.1:port". `headers`: lines with "\r\n" behind each.
  explicit ScriptedWorker(const std::string& address, const std::string& headers = Bearer()) {
    const size_t colon = address.find(':');
    int port = 0;
    std::from_chars(address.data() + colon + 1, address.data() + address.size(), port);
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) return;
    SendRaw("GET /agent HTTP/1.1\r\nhost: " + address +
            "\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
            headers + "\r\n");
    const absl::Time until = absl::Now() + absl::Seconds(5);
    size_t end = std::string::npos;
    while ((end = in_.find("\r\n\r\n")) == std::string::npos && Read(until)) {
    }
    if (in_.size() > 12) std::from_chars(in_.data() + 9, in_.data() + 12, status_);
    if (status_ != 101) {
      while (Read(until)) {
      }
      return;
    }
    in_.erase(0, end + 4);
  }
  ~ScriptedWorker() { Cut(); }
  ScriptedWorker(const ScriptedWorker&) = delete;
  ScriptedWorker& operator=(const ScriptedWorker&) = delete;

  // Of LiveKit's workers: an API key's token with the agent grant alone.
  static std::string Bearer() {
    auth::Claims claims;
    claims.video.agent = true;
    return "authorization: Bearer " +
           auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1)) + "\r\n";
  }

  int status() const { return status_; }             // of the upgrade; 101: open
  const std::string& answer() const { return in_; }  // the refusal, head and body
  int pings() const { return pings_; }
  bool last_was_text() const { return last_was_text_; }
  const std::string& last_text() const { return last_text_; }

  bool SendRaw(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  bool SendFrame(int opcode, std::string_view data, bool final = true) {
    std::string frame(1, static_cast<char>((final ? 0x80 : 0) | opcode));
    if (data.size() < 126) {
      frame += static_cast<char>(0x80 | data.size());
    } else {
      const int bytes = data.size() < 65536 ? 2 : 8;
      frame += static_cast<char>(0x80 | (bytes == 2 ? 126 : 127));
      for (int i = bytes - 1; i >= 0; --i) frame += static_cast<char>(data.size() >> (8 * i) & 255);
    }
    frame += std::string(4, '\0');  // the mask
    frame += data;
    return SendRaw(frame);
  }
  bool Send(const lk::WorkerMessage& message) {
    return SendFrame(kBinary, message.SerializeAsString());
  }
  // As a killed process: without a close.
  void Cut() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  // The next message of a kind; others before it are kept. nullopt: none came in time.
  std::optional<lk::ServerMessage> Await(lk::ServerMessage::MessageCase kind,
                                         absl::Duration limit = absl::Seconds(30)) {
    const absl::Time until = absl::Now() + limit;
    do {
      for (auto it = inbox_.begin(); it != inbox_.end(); ++it) {
        if (it->message_case() != kind) continue;
        lk::ServerMessage found = *it;
        inbox_.erase(it);
        return found;
      }
    } while (NextFrame(until));
    return std::nullopt;
  }
  // The code of the server's close frame; 0: it closed without, -1: it did not close in time.
  int AwaitClose(absl::Duration limit = absl::Seconds(30)) {
    const absl::Time until = absl::Now() + limit;
    while (close_code_ < 0 && NextFrame(until)) {
    }
    return close_code_ >= 0 ? close_code_ : ended_ ? 0 : -1;
  }
  const std::string& close_reason() const { return close_reason_; }

  std::string Register(const std::string& agent_name, const std::string& deployment = "") {
    lk::WorkerMessage message;
    message.mutable_register_()->set_agent_name(agent_name);
    message.mutable_register_()->set_deployment(deployment);
    message.mutable_register_()->set_version("test");
    Send(message);
    const auto answer = Await(lk::ServerMessage::kRegister);
    return answer ? answer->register_().worker_id() : "";
  }
  void Answer(const std::string& job_id, bool available, bool terminate = false) {
    lk::WorkerMessage message;
    message.mutable_availability()->set_job_id(job_id);
    message.mutable_availability()->set_available(available);
    message.mutable_availability()->set_terminate(terminate);
    Send(message);
  }
  void Say(const std::string& job_id, lk::JobStatus status, const std::string& error = "") {
    lk::WorkerMessage message;
    message.mutable_update_job()->set_job_id(job_id);
    message.mutable_update_job()->set_status(status);
    message.mutable_update_job()->set_error(error);
    Send(message);
  }
  void SayStatus(lk::WorkerStatus status, float load) {
    lk::WorkerMessage message;
    message.mutable_update_worker()->set_status(status);
    message.mutable_update_worker()->set_load(load);
    Send(message);
  }
  // Takes the next job that is offered and says that it runs; its id here, "" when none came.
  std::string TakeJob(absl::Duration limit = absl::Seconds(30)) {
    const auto asked = Await(lk::ServerMessage::kAvailability, limit);
    if (!asked) return "";
    Answer(asked->availability().job().id(), true);
    const auto given = Await(lk::ServerMessage::kAssignment);
    if (!given) return "";
    Say(given->assignment().job().id(), lk::JS_RUNNING);
    return given->assignment().job().id();
  }

 private:
  bool Read(absl::Time until) {
    pollfd waiting{fd_, POLLIN, 0};
    const int64_t left = std::max<int64_t>(0, absl::ToInt64Milliseconds(until - absl::Now()));
    if (fd_ < 0 || ended_ || poll(&waiting, 1, static_cast<int>(left)) <= 0) return false;
    char buffer[16384];
    const ssize_t size = recv(fd_, buffer, sizeof buffer, 0);
    if (size <= 0) {
      ended_ = true;
      return false;
    }
    in_.append(buffer, static_cast<size_t>(size));
    return true;
  }
  // Reads one frame, waiting for it; false: none came.
  bool NextFrame(absl::Time until) {
    size_t head = 2, size = 0;
    const auto complete = [&] {
      if (in_.size() < 2) return false;
      size = static_cast<unsigned char>(in_[1]) & 127;
      const int bytes = size == 126 ? 2 : size == 127 ? 8 : 0;
      head = 2 + static_cast<size_t>(bytes);
      if (in_.size() < head) return false;
      if (bytes > 0) size = 0;
      for (int i = 0; i < bytes; ++i) {
        size = size << 8 | static_cast<unsigned char>(in_[static_cast<size_t>(2 + i)]);
      }
      return in_.size() >= head + size;
    };
    while (!complete()) {
      if (!Read(until)) return false;
    }
    const int opcode = in_[0] & 15;
    const std::string data = in_.substr(head, size);
    in_.erase(0, head + size);
    Take(opcode, data);
    return true;
  }
  void Take(int opcode, const std::string& data);

  int fd_ = -1;
  int status_ = 0;
  std::string in_;
  bool ended_ = false;
  int pings_ = 0;
  int close_code_ = -1;
  std::string close_reason_;
  bool last_was_text_ = false;
  std::string last_text_;
  std::deque<lk::ServerMessage> inbox_;
};

inline void ScriptedWorker::Take(int opcode, const std::string& data) {
  if (opcode == kPing) {
    ++pings_;
    SendFrame(kPong, data);
  } else if (opcode == kClose) {
    close_code_ = data.size() < 2 ? 0
                                  : static_cast<unsigned char>(data[0]) << 8 |
                                        static_cast<unsigned char>(data[1]);
    close_reason_ = data.size() > 2 ? data.substr(2) : "";
  } else if (opcode == kText) {
    last_was_text_ = true;
    last_text_ = data;
    lk::ServerMessage message;
    if (google::protobuf::util::JsonStringToMessage(data, &message).ok()) inbox_.push_back(message);
  } else if (opcode == kBinary) {
    last_was_text_ = false;
    lk::ServerMessage message;
    if (message.ParseFromString(data)) inbox_.push_back(message);
  }
}

}  // namespace parley::testing
