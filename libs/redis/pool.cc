#include <algorithm>
#include <map>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "redis/connection.h"
#include "redis/master_finder.h"
#include "redis/redis.h"

namespace parley::redis {

void Config::Bind(config::Table& table) {
  table.Text("redis.address", &address, "Redis: host:port, or unix:/path");
  table.Text("redis.password", &password, "Password for AUTH");
  table.NotAFlag();
  table.List("redis.sentinels", &sentinels,
             "Sentinels as host:port, all of them; they name the server and redis.address is not "
             "used");
  table.Text("redis.master_name", &master_name, "Name of the master that the sentinels watch");
  table.Text("redis.sentinel_password", &sentinel_password, "Password for AUTH at the sentinels");
  table.NotAFlag();
  table.Int("redis.database", &database, 0, 15, "Database number for SELECT");
  table.Duration("redis.connect_timeout", &connect_timeout, absl::Milliseconds(10),
                 absl::Seconds(60), "How long connecting may take");
  table.Duration("redis.command_timeout", &command_timeout, absl::Milliseconds(10),
                 absl::Seconds(60),
                 "How long a command may take, waiting for a connection included");
  table.Int("redis.connections", &connections, 1, 256, "Connections for commands");
}

std::string Config::Where() const {
  if (sentinels.empty()) return address;
  return fmt::format("{} of sentinels {}", master_name, fmt::join(sentinels, ", "));
}

struct Pool::Impl {
  Impl(Config c, log::Logger l) : config(std::move(c)), log(std::move(l)), finder(config) {
    for (int i = 0; i < config.connections; ++i) {
      idle.push_back(std::make_unique<Connection>(config, finder));
    }
  }

  using Replies = std::vector<absl::StatusOr<Reply>>;

  absl::StatusOr<Replies> Run(const std::vector<std::vector<std::string>>& commands,
                              std::string_view server = "") {
    const int64_t start = Clock::Real().MonotonicMicros();
    std::unique_ptr<Connection> connection = Take();
    if (connection == nullptr) {
      return Unavailable("Redis at {}: all {} connections are busy", config.Where(),
                         config.connections);
    }
    const absl::Duration waited = absl::Microseconds(Clock::Real().MonotonicMicros() - start);
    // Setting another time-out costs system calls; a short wait is not worth them.
    const absl::Duration timeout = waited * 10 < config.command_timeout
                                       ? config.command_timeout
                                       : config.command_timeout - waited;
    absl::StatusOr<Replies> replies =
        connection->Run(commands, std::max(timeout, absl::Milliseconds(1)), server);
    Note(replies.status());
    MutexLock lock(&mutex);
    idle.push_back(std::move(connection));
    available.Signal();
    return replies;
  }

  std::unique_ptr<Connection> Take() {
    const int64_t until =
        Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(config.command_timeout);
    MutexLock lock(&mutex);
    while (idle.empty()) {
      const int64_t left = until - Clock::Real().MonotonicMicros();
      if (left <= 0) return nullptr;
      available.WaitFor(&mutex, absl::Microseconds(left));
    }
    std::unique_ptr<Connection> connection = std::move(idle.back());
    idle.pop_back();
    return connection;
  }

  // One line when Redis goes, one when it is back.
  void Note(const absl::Status& status) {
    MutexLock lock(&mutex);
    if (absl::IsUnavailable(status) != reachable) return;
    reachable = !reachable;
    if (reachable) {
      log.Info("redis reachable", {{"address", config.Where()}});
    } else {
      log.Warn("redis unreachable", {{"address", config.Where()}, {"error", Message(status)}});
    }
  }

  absl::StatusOr<Reply> One(const std::vector<std::string>& arguments,
                            std::string_view server = "") {
    PARLEY_ASSIGN_OR_RETURN(Replies replies, Run({arguments}, server));
    return std::move(replies.front());
  }

  // The digest under which the server knows the script; asked once, since Redis names it itself.
  absl::StatusOr<std::string> Load(const Script& script, bool again) {
    if (!again) {
      MutexLock lock(&mutex);
      if (const auto it = digests.find(script.source.data()); it != digests.end()) {
        return it->second;
      }
    }
    absl::StatusOr<Reply> reply = One({"SCRIPT", "LOAD", std::string(script.source)});
    if (!reply.ok()) return Annotate(reply.status(), script.name);
    MutexLock lock(&mutex);
    return digests[script.source.data()] = reply->text;
  }

  const Config config;
  const log::Logger log;
  MasterFinder finder;
  Mutex mutex;
  CondVar available;
  std::vector<std::unique_ptr<Connection>> idle ABSL_GUARDED_BY(mutex);
  std::vector<std::unique_ptr<Connection>> blocking ABSL_GUARDED_BY(mutex);  // idle ones
  std::map<const char*, std::string> digests ABSL_GUARDED_BY(mutex);
  bool reachable ABSL_GUARDED_BY(mutex) = true;
};

Pool::Pool(Config config, log::Logger log)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(log))) {}
Pool::~Pool() = default;

const Config& Pool::config() const { return impl_->config; }

absl::StatusOr<Reply> Pool::Command(const std::vector<std::string>& arguments) {
  return impl_->One(arguments);
}

absl::StatusOr<std::vector<absl::StatusOr<Reply>>> Pool::Pipeline(
    const std::vector<std::vector<std::string>>& commands) {
  if (commands.empty()) return Impl::Replies{};
  return impl_->Run(commands);
}

namespace {

// The server has no code of its own for it: "ERR Function not found".
bool IsMissingFunction(const absl::Status& status) {
  return ReasonOf(status).reason == "ERR" &&
         status.message().find("Function not found") != std::string_view::npos;
}

}  // namespace

absl::StatusOr<Reply> Pool::Eval(const Script& script, const std::vector<std::string>& keys,
                                 const std::vector<std::string>& arguments,
                                 std::string_view server) {
  PARLEY_ASSIGN_OR_RETURN(std::string digest, impl_->Load(script, false));
  std::vector<std::string> command = {"EVALSHA", digest, std::to_string(keys.size())};
  command.insert(command.end(), keys.begin(), keys.end());
  command.insert(command.end(), arguments.begin(), arguments.end());
  absl::StatusOr<Reply> reply = impl_->One(command, server);
  if (reply.ok() || ReasonOf(reply.status()).reason != "NOSCRIPT") return reply;
  PARLEY_ASSIGN_OR_RETURN(command[1], impl_->Load(script, true));
  return impl_->One(command, server);
}

absl::StatusOr<Reply> Pool::Call(const Function& function, const std::vector<std::string>& keys,
                                 const std::vector<std::string>& arguments, std::string_view server,
                                 int replicas_wanted, int* replicas) {
  std::vector<std::vector<std::string>> commands(1);
  std::vector<std::string>& command = commands[0];
  command.reserve(3 + keys.size() + arguments.size());
  command.insert(command.end(),
                 {"FCALL", std::string(function.called), std::to_string(keys.size())});
  command.insert(command.end(), keys.begin(), keys.end());
  command.insert(command.end(), arguments.begin(), arguments.end());
  if (replicas_wanted > 0) commands.push_back({"WAIT", std::to_string(replicas_wanted), "200"});
  const auto call = [&]() -> absl::StatusOr<Reply> {
    PARLEY_ASSIGN_OR_RETURN(Impl::Replies replies, impl_->Run(commands, server));
    if (replicas_wanted > 0 && replies[1].ok()) *replicas = static_cast<int>(replies[1]->integer);
    return std::move(replies.front());
  };
  absl::StatusOr<Reply> reply = call();
  if (reply.ok() || !IsMissingFunction(reply.status())) return reply;
  const auto loaded = impl_->One({"FUNCTION", "LOAD", std::string(function.library->source)});
  // Somebody else may have been quicker: what counts is whether the call works now.
  reply = call();
  if (!reply.ok() && IsMissingFunction(reply.status()) && !loaded.ok()) {
    return Annotate(loaded.status(), function.library->name);
  }
  return reply;
}

absl::StatusOr<Reply> Pool::BlockingCommand(const std::vector<std::string>& arguments,
                                            absl::Duration block) {
  std::unique_ptr<Connection> connection;
  {
    MutexLock lock(&impl_->mutex);
    if (!impl_->blocking.empty()) {
      connection = std::move(impl_->blocking.back());
      impl_->blocking.pop_back();
    }
  }
  if (connection == nullptr)
    connection = std::make_unique<Connection>(impl_->config, impl_->finder);
  absl::StatusOr<Impl::Replies> replies =
      connection->Run({arguments}, block + impl_->config.command_timeout);
  MutexLock lock(&impl_->mutex);
  impl_->blocking.push_back(std::move(connection));
  if (!replies.ok()) return replies.status();
  return std::move(replies->front());
}

absl::Status Pool::Ping() { return Command({"PING"}).status(); }

}  // namespace parley::redis
