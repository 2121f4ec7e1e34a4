#pragma once
// One connection to Redis through hiredis. Private to this library.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <vector>

#include "redis/redis.h"

struct redisContext;
struct redisReply;

namespace parley::redis {

// Connects on first use and again after an error. Used by one thread at a time.
class Connection {
 public:
  explicit Connection(const Config& config);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Sends all commands, then reads all answers; `timeout` bounds connecting and each wait.
  // Unavailable: out of reach or too late; the connection is closed then.
  absl::StatusOr<std::vector<absl::StatusOr<Reply>>> Run(
      const std::vector<std::vector<std::string>>& commands, absl::Duration timeout);

 private:
  absl::Status Connect(absl::Duration timeout);
  absl::Status Authorise();
  absl::StatusOr<absl::StatusOr<Reply>> ReadReply();
  bool ClosedByPeer() const;
  void Append(const std::vector<std::string>& command);
  void SetTimeout(absl::Duration timeout);
  absl::Status Failure(std::string_view what);
  void Close();

  const Config config_;
  redisContext* context_ = nullptr;
  absl::Duration timeout_ = absl::ZeroDuration();
};

// Splits "host:port", "[v6]:port" or "unix:/path". InvalidArgument says what is wrong.
struct Endpoint {
  std::string host;
  int port = 0;
  std::string unix_path;
};
absl::StatusOr<Endpoint> ParseAddress(std::string_view address);

}  // namespace parley::redis
