#pragma once
// Redis through hiredis: connections, scripts, blocking reads. Nobody else includes hiredis.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/table.h"
#include "log/log.h"

namespace parley::redis {

struct Config {
  std::string address = "127.0.0.1:6379";  // host:port, or unix:/path
  std::string password;                    // environment or file only
  // Sentinels ("host:port", all of them): they name the server, fail-overs are followed, and
  // `address` is not used. Empty: one server.
  std::vector<std::string> sentinels;
  std::string master_name = "mymaster";
  std::string sentinel_password;  // environment or file only
  int database = 0;
  absl::Duration connect_timeout = absl::Milliseconds(500);
  absl::Duration command_timeout = absl::Milliseconds(500);
  int connections = 4;

  void Bind(config::Table& table);  // redis.address, …
  std::string Where() const;        // for people: the address, or the sentinels
};

// An answer of Redis. Errors of the server ("ERR …", "STALE_EPOCH …") are statuses, not replies:
// FailedPrecondition with the error's first word as reason.
struct Reply {
  enum class Type { kNil, kString, kInteger, kArray, kStatus };
  Type type = Type::kNil;
  std::string text;
  int64_t integer = 0;
  std::vector<Reply> elements;

  bool nil() const { return type == Type::kNil; }
};

// A Lua script, loaded on first use, again after NOSCRIPT. Immutable; name it after its file.
struct Script {
  std::string_view name;
  std::string_view source;
};

// Lua that the server keeps loaded, and the functions in it: nothing is compiled or set up again
// with each call. Loaded when a function is missing. Immutable; servers keep the library of another
// version beside it, so its name and those of its functions change with its source.
struct Library {
  std::string_view name;
  std::string_view source;  // with its `#!lua name=…`
};
struct Function {
  std::string_view name;    // for people
  std::string_view called;  // as the library registers it
  const Library* library;
};

// A few connections, each used by one thread at a time. Thread-safe. Calls block for one round trip
// (about 0.1 ms) and at most the command timeout. Unavailable: out of reach or timed out (the
// outcome of a write is then unknown: re-read, then decide). Reconnects by itself.
class Pool {
 public:
  Pool(Config config, log::Logger log);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  absl::StatusOr<Reply> Command(const std::vector<std::string>& arguments);
  // All in one round trip; one status or reply per command.
  absl::StatusOr<std::vector<absl::StatusOr<Reply>>> Pipeline(
      const std::vector<std::vector<std::string>>& commands);
  // `server`: the run_id of the only server process that may run it; "" = any. FailedPrecondition
  // (SERVER_CHANGED): nothing was sent, the connection leads to another process by now (a restart,
  // a fail-over), whose data may be older.
  absl::StatusOr<Reply> Eval(const Script& script, const std::vector<std::string>& keys,
                             const std::vector<std::string>& arguments,
                             std::string_view server = "");
  // The same for a function of a library. `replicas_wanted` above 0: waits up to 200 ms until so
  // many replicas have everything that was written up to then; `*replicas`: how many have.
  absl::StatusOr<Reply> Call(const Function& function, const std::vector<std::string>& keys,
                             const std::vector<std::string>& arguments,
                             std::string_view server = "", int replicas_wanted = 0,
                             int* replicas = nullptr);
  // On a connection of its own: for XREAD BLOCK and the like. `timeout` bounds the wait beyond the
  // command's own block time.
  absl::StatusOr<Reply> BlockingCommand(const std::vector<std::string>& arguments,
                                        absl::Duration block);
  absl::Status Ping();
  const Config& config() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A redis-server child of our own, on a unix socket in `directory` (appendonly everysec, no TCP
// port). For `parley dev` and tests. Ends with its owner (PDEATHSIG) and in the destructor.
class PrivateServer {
 public:
  // NotFound: redis-server is not installed. Blocks until it answers PING or 5 s passed.
  static absl::StatusOr<std::unique_ptr<PrivateServer>> Start(
      const std::string& directory, const std::vector<std::string>& extra_arguments = {});
  ~PrivateServer();
  std::string address() const;  // "unix:/…"
  int pid() const;
  void Kill();             // SIGKILL
  absl::Status Restart();  // after Kill: same directory, same data

 private:
  PrivateServer() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace parley::redis
