#pragma once
// What MCP over any transport has in common.
#include <atomic>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/mutex.h"
#include "tools/mcp.h"

namespace parley::tools {

class McpSession : public McpServer {
 public:
  absl::StatusOr<std::vector<McpTool>> List(absl::Duration timeout) final;
  absl::StatusOr<std::string> Call(std::string_view tool, std::string_view arguments_json,
                                   absl::Duration timeout,
                                   const std::function<bool()>& cancelled) final;

 protected:
  // Sends a request and waits for its answer: the result as JSON. `first`: it is `initialize`.
  //   Aborted  the server has forgotten this session: a new one is begun, and the call made again
  virtual absl::StatusOr<std::string> Exchange(int64_t id, const std::string& request, bool first,
                                               absl::Duration timeout,
                                               const std::function<bool()>& cancelled) = 0;
  // Does not wait for long, and may fail.
  virtual void Notify(const std::string& notification, absl::Duration timeout) = 0;
  // Forgets a connection that is of no use any more, so that a new one is made.
  virtual void Reset() = 0;
  // Whether what initialize settled still holds.
  virtual bool Connected() const = 0;
  std::string protocol_version() const;

 private:
  absl::Status Initialize(absl::Duration timeout, const std::function<bool()>& cancelled);
  absl::StatusOr<std::string> Request(const std::string& method, const nlohmann::json& params,
                                      absl::Duration timeout,
                                      const std::function<bool()>& cancelled);

  Mutex initializing_;
  bool initialized_ ABSL_GUARDED_BY(initializing_) = false;
  mutable Mutex mutex_;
  std::string version_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int64_t> ids_{0};
};

}  // namespace parley::tools
