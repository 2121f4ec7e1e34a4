#pragma once
#include <parley/room/v1/signalling.grpc.pb.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "room_server/host.h"
#include "room_server/signal_codec.h"
#include "rpc/bidi.h"
#include "webrtc/engine.h"

namespace parley::room_server {

class RtcSession;

// Where a client that lost its signalling connection finds its session again. Thread-safe.
class RtcSessions {
 public:
  void Add(const std::string& participant_sid, std::weak_ptr<RtcSession> session);
  void Remove(const std::string& participant_sid);
  std::shared_ptr<RtcSession> Find(const std::string& participant_sid) const;

 private:
  mutable Mutex mutex_;
  std::map<std::string, std::weak_ptr<RtcSession>> sessions_ ABSL_GUARDED_BY(mutex_);
};

// One SignallingService.Connect stream: opens a session, or goes on with one, and carries its
// frames. A session may outlive its stream and get another.
class RtcStream final
    : public rpc::BidiSession<room::v1::ConnectRequest, room::v1::ConnectResponse> {
 public:
  // `engine` must outlive the stream. `trace`: what the call belongs to.
  RtcStream(std::shared_ptr<Host> host, webrtc::Engine& engine,
            std::shared_ptr<RtcSessions> sessions, const TraceContext& trace);

  // Thread-safe, for the session. A client that reads too slowly is cut off.
  void SendResponse(const lk::SignalResponse& response);
  // Says why, and ends. `action`: what the client shall do.
  void Dismiss(lk::DisconnectReason reason, lk::LeaveRequest::Action action);

 private:
  // rpc::BidiSession, on the strand.
  void OnMessage(const room::v1::ConnectRequest& message) override;
  void OnClosed() override;

  void Open(const room::v1::OpenSignalling& open);
  absl::Status ReadOpen(const room::v1::OpenSignalling& open, Ticket* ticket,
                        lk::JoinRequest* join) const;
  void Resume(const Ticket& ticket, const lk::JoinRequest& join);
  // The session is not here: is its room?
  void ResumeElsewhere(const Ticket& ticket);

  const std::shared_ptr<Host> host_;
  webrtc::Engine& engine_;
  const std::shared_ptr<RtcSessions> sessions_;
  const TraceContext trace_;
  std::atomic<bool> json_{false};  // as the client's frames
  // On the strand.
  bool asked_ = false;
  std::shared_ptr<RtcSession> session_;
};

}  // namespace parley::room_server
