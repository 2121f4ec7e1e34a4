#pragma once
// A job that an external LiveKit server gave us: a mirror of its room (ConnectorService), a
// dispatch of ours for the agent, and what becomes of it.
#include <parley/dispatch/v1/dispatch.grpc.pb.h>
#include <parley/livekit/v1/agent.pb.h>
#include <parley/room/v1/connector.grpc.pb.h>

#include <functional>
#include <memory>
#include <string>

#include "api_server/api_server.h"
#include "event/loop.h"
#include "rpc/bidi.h"

namespace parley::api_server {

namespace lk = ::parley::livekit::v1;

// On the loop. Held by shared_ptr.
class AttachedJob final : public std::enable_shared_from_this<AttachedJob> {
 public:
  // Once RUNNING, at most, then once SUCCESS or FAILED; after that it is over.
  using Report = std::function<void(lk::JobStatus status, const std::string& error)>;

  // `backend` must outlive the loop's run.
  AttachedJob(Backend& backend, std::shared_ptr<event::Loop> loop, std::string project, lk::Job job,
              std::string url, std::string token, Report report);

  void Start();
  // The external server wants it to end.
  void Terminate();
  // Several times a second.
  void Tick(int64_t now_us);
  // Our side goes: the call goes on, nobody reports on it any more.
  void Abandon();

  const std::string& id() const { return job_.id(); }
  bool over() const { return over_; }
  bool placed() const { return placed_; }  // an agent server has it: it fills a slot there

 private:
  using Stream = rpc::ClientBidi<room::v1::MirrorRequest, room::v1::MirrorResponse>;

  void OpenMirror(const std::string& address);
  void OnMirror(uint64_t stream, const room::v1::MirrorResponse& response);
  void OnMirrorClosed(uint64_t stream, const absl::Status& status);
  void Dispatch();
  void OnDispatched(const absl::Status& status, const dispatch::v1::Dispatch& dispatch);
  void Look();
  void OnLooked(const absl::Status& status, const dispatch::v1::Dispatch& dispatch);
  void Cancel();
  void End(lk::JobStatus status, const std::string& error);

  Backend& backend_;
  const std::shared_ptr<event::Loop> loop_;
  const std::string project_;
  const lk::Job job_;
  const std::string url_;
  const std::string room_;  // ours
  const Report report_;
  std::string token_;  // the newest

  std::shared_ptr<Stream> stream_;
  uint64_t streams_ = 0;  // what others say is late
  int hops_ = 0;
  int64_t mirror_again_us_ = 0;  // 0: it is there, or on its way
  int64_t lost_since_us_ = 0;
  std::string why_ended_;  // of a mirror that broke
  bool wanted_ = false;    // the dispatch was asked for
  bool asking_ = false;
  int64_t asked_since_us_ = 0;
  int64_t ask_again_us_ = 0;
  std::string dispatch_id_;
  bool terminated_ = false;
  bool cancelling_ = false;
  bool looking_ = false;
  int64_t look_us_ = 0;
  int64_t look_every_us_ = 0;
  bool placed_ = false;
  bool running_ = false;
  bool over_ = false;
};

}  // namespace parley::api_server
