#pragma once
// The gateways of a conversation without a cluster: children of the console, on ports of their own.
#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <thread>

#include "agent/console/child.h"

namespace parley::agent {

// One gateway. What it warns of shows on standard error.
class LocalGateway {
 public:
  // `program`: parley-stt-gateway and its like. Blocks until it serves, at most 15 s.
  //   NotFound     it is not installed
  //   Unavailable  it does not serve; with its last line
  static absl::StatusOr<std::unique_ptr<LocalGateway>> Start(const std::string& program);
  ~LocalGateway();

  const std::string& address() const { return address_; }

 private:
  explicit LocalGateway(std::unique_ptr<Child> child) : child_(std::move(child)) {}
  void Listen(std::string text);

  std::unique_ptr<Child> child_;
  std::string address_;
  std::thread listener_;
};

}  // namespace parley::agent
