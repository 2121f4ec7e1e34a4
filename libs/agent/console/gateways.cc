#include "agent/console/gateways.h"

#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/status.h"

namespace parley::agent {
namespace {

constexpr absl::Duration kStart = absl::Seconds(15);

std::optional<std::string> TakeLine(std::string& text) {
  const size_t end = text.find('\n');
  if (end == std::string::npos) return std::nullopt;
  std::string line = text.substr(0, end);
  text.erase(0, end + 1);
  return line;
}

// False at the end of what there is to read.
bool ReadMore(int fd, int timeout_ms, std::string& text) {
  pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
  if (poll(&wait, 1, timeout_ms) <= 0) return true;
  char piece[4096];
  const ssize_t got = read(fd, piece, sizeof piece);
  if (got > 0) text.append(piece, static_cast<size_t>(got));
  return got != 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalGateway>> LocalGateway::Start(const std::string& program) {
  PARLEY_ASSIGN_OR_RETURN(const std::string path, FindProgram(program));
  PARLEY_ASSIGN_OR_RETURN(auto child, Child::Start({path, "--dev", "--log-level", "info",
                                                    "--log-format", "json", "--grpc-port", "0"},
                                                   {.output = true, .messages = true}));
  std::unique_ptr<LocalGateway> gateway(new LocalGateway(std::move(child)));
  const absl::Time end = absl::Now() + kStart;
  std::string text;
  std::string last;
  while (absl::Now() < end) {
    const bool more = ReadMore(gateway->child_->output(), 100, text);
    while (const std::optional<std::string> line = TakeLine(text)) {
      last = *line;
      const auto json = nlohmann::json::parse(*line, nullptr, false);
      if (!json.is_object() || json.value("msg", "") != "serving") continue;
      gateway->address_ = fmt::format("127.0.0.1:{}", json.value("grpc_port", 0));
      gateway->listener_ = std::thread([self = gateway.get(), text] { self->Listen(text); });
      return gateway;
    }
    if (!more) break;
  }
  return Unavailable("{} does not serve: {}", program, last);
}

// Until it has ended: a full pipe would stop it.
void LocalGateway::Listen(std::string text) {
  while (ReadMore(child_->output(), -1, text)) {
    while (const std::optional<std::string> line = TakeLine(text)) {
      const auto json = nlohmann::json::parse(*line, nullptr, false);
      const std::string level = json.is_object() ? json.value("level", "") : "error";
      if (level == "warn" || level == "error") fmt::print(stderr, "\r\033[K{}\n", *line);
    }
  }
}

LocalGateway::~LocalGateway() {
  child_->End();
  if (listener_.joinable()) listener_.join();
}

}  // namespace parley::agent
