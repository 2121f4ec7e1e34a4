#pragma once
// One connection to Redis through hiredis. Private to this library.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <vector>

#include "redis/master_finder.h"
#include "redis/redis.h"

struct redisContext;
struct redisReply;

namespace parley::redis {

// Connects on first use and again after an error. Used by one thread at a time.
class Connection {
 public:
  // `finder` must outlive it.
  Connection(const Config& config, MasterFinder& finder);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Sends all commands, then reads all answers; `timeout` bounds connecting and each wait.
  //   Unavailable                          out of reach or too late; the connection is closed then
  //   FailedPrecondition (SERVER_CHANGED)  it leads to another process than `server`; nothing sent
  absl::StatusOr<std::vector<absl::StatusOr<Reply>>> Run(
      const std::vector<std::vector<std::string>>& commands, absl::Duration timeout,
      std::string_view server = "");

 private:
  absl::Status EnsureConnected(absl::Duration timeout);
  absl::Status Connect(const std::string& address, absl::Duration timeout);
  absl::Status Authorise();
  absl::Status LearnRunId();
  absl::StatusOr<Reply> Ask(const std::vector<std::string>& command);
  absl::StatusOr<absl::StatusOr<Reply>> ReadReply();
  bool ClosedByPeer() const;
  void Append(const std::vector<std::string>& command);
  void SetTimeout(absl::Duration timeout);
  absl::Status Failure(std::string_view what);
  void Close();

  const Config config_;
  MasterFinder& finder_;
  uint64_t generation_ = 0;
  std::string run_id_;  // of the server process
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
