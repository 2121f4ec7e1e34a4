#pragma once
// Calls between the job and others in its room (LiveKit's RPC), both ways.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "agent/agent.h"
#include "agent/job/mailbox.h"
#include "event/loop.h"
#include "parley/room/v1/room.pb.h"

namespace parley::agent {

// Loop thread only; methods run on threads of their own.
class RpcCalls {
 public:
  using Done = std::function<void(absl::StatusOr<std::string>)>;
  static constexpr size_t kMaxRunning = 16;   // methods at a time; more are refused
  static constexpr size_t kMaxWaiting = 256;  // calls of ours without an answer

  // `prefix` makes ids of requests that are nobody else's.
  RpcCalls(event::Loop& loop, std::shared_ptr<Mailbox> mailbox, std::string prefix,
           std::function<void(const parley::room::v1::RpcPacket&)> send);
  ~RpcCalls();
  RpcCalls(const RpcCalls&) = delete;
  RpcCalls& operator=(const RpcCalls&) = delete;

  // `done` is called once: with the answer, or with what JobContext::PerformRpc says.
  void Perform(std::string identity, std::string method, std::string payload,
               absl::Duration timeout, Done done);
  void Register(std::string method, JobContext::RpcHandler handler);
  void OnPacket(const parley::room::v1::RpcPacket& packet);

 private:
  struct Waiting {
    Done done;
    int64_t ack_by_us = 0;  // 0: it has come
    int64_t answer_by_us = 0;
  };
  void OnRequest(const parley::room::v1::RpcPacket& packet);
  void OnResponse(const parley::room::v1::RpcPacket& packet);
  void Answer(const parley::room::v1::RpcPacket& request,
              const absl::StatusOr<std::string>& result);
  void Look();
  void Arm();

  event::Loop& loop_;
  const std::shared_ptr<Mailbox> mailbox_;
  const std::string prefix_;
  const std::function<void(const parley::room::v1::RpcPacket&)> send_;
  event::Timer timer_;
  std::map<std::string, JobContext::RpcHandler> methods_;
  std::map<std::string, Waiting> waiting_;  // by request
  uint64_t requests_ = 0;
  size_t running_ = 0;
  std::shared_ptr<RpcCalls*> self_ = std::make_shared<RpcCalls*>(this);
};

}  // namespace parley::agent
