#pragma once
// The stream to the broker: opened, registered, kept, opened again. What is said over it is the
// handler's business.
#include <functional>
#include <memory>
#include <string>

#include "event/loop.h"
#include "log/log.h"
#include "parley/dispatch/v1/worker.grpc.pb.h"
#include "rpc/bidi.h"

namespace parley::agent {

// Loop thread only.
class BrokerLink {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // A stream is open: say who registers; `connect_seq` is filled in already.
    virtual void FillRegister(parley::dispatch::v1::Register& request) = 0;
    // The first message is `registered`.
    virtual void OnBroker(const parley::dispatch::v1::ConnectResponse& response) = 0;
    // The stream is over. True: open another one; false: the handler will call Start() or never.
    virtual bool OnBrokerLost(const absl::Status& status, bool was_registered) = 0;
  };
  // `channel` may be shared. `connect_seq` of the first stream is one more than `after_seq`.
  BrokerLink(std::shared_ptr<event::Loop> loop, const std::shared_ptr<grpc::Channel>& channel,
             std::function<std::string()> token, Handler& handler, uint64_t after_seq = 0);
  ~BrokerLink();
  BrokerLink(const BrokerLink&) = delete;
  BrokerLink& operator=(const BrokerLink&) = delete;

  void Start();
  // False when not registered just now, or the stream is full: say it again after
  // OnBroker(registered).
  bool Send(parley::dispatch::v1::ConnectRequest request);
  bool registered() const { return registered_; }
  uint64_t connect_seq() const { return connect_seq_; }
  int64_t heard_us() const { return heard_us_; }  // when the broker last said anything
  // Breaks the stream, to open another.
  void Break();
  // Looks for a better broker: registers over another stream and leaves this one only once that has
  // been answered. Does nothing while it is at it.
  void Move();
  // An orderly end: no more requests, no more streams.
  void Close();

  // Tells the broker that this worker is gone, so that it needs not wait for the lease. Does not
  // wait; `done` runs on the loop.
  void ReportGone(const std::string& worker_id, const std::string& instance,
                  std::function<void(const absl::Status&)> done);

 private:
  using Stream =
      rpc::ClientBidi<parley::dispatch::v1::ConnectRequest, parley::dispatch::v1::ConnectResponse>;
  void Connect();
  std::shared_ptr<Stream> Open(uint64_t seq);
  void OnMessage(uint64_t seq, const parley::dispatch::v1::ConnectResponse& response);
  void OnDone(uint64_t seq, const absl::Status& status);
  void DropCandidate();

  const std::shared_ptr<event::Loop> loop_;
  const std::function<std::string()> token_;
  Handler& handler_;
  std::unique_ptr<parley::dispatch::v1::WorkerService::Stub> stub_;
  std::shared_ptr<Stream> stream_;
  std::shared_ptr<Stream> candidate_;  // Move: opened, not registered yet
  event::Timer timer_;                 // to the next attempt, or the answer to register
  event::Timer candidate_timer_;       // to the answer to its register
  uint64_t connect_seq_ = 0;           // of stream_
  uint64_t candidate_seq_ = 0;
  uint64_t last_seq_;  // ever sent
  int64_t heard_us_ = 0;
  bool registered_ = false;
  bool closed_ = false;
  bool retry_at_once_ = true;
  std::shared_ptr<BrokerLink*> self_ = std::make_shared<BrokerLink*>(this);
};

}  // namespace parley::agent
