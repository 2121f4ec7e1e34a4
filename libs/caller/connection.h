#pragma once
#include <absl/status/statusor.h>
#include <parley/room/v1/room.grpc.pb.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/mutex.h"
#include "rpc/bidi.h"

namespace parley::caller {

// A MediaService.Join stream whose messages wait in an inbox. Thread-safe.
class Connection {
 public:
  // Joins at `media_url`, or where the room is. Where that server is dead or drains, asks again
  // until another has the room. Blocks up to `timeout`.
  //   as MediaService.Join; DeadlineExceeded, Unavailable: no room server answers
  static absl::StatusOr<std::unique_ptr<Connection>> Join(std::string media_url,
                                                          const room::v1::JoinRoom& join,
                                                          absl::Duration timeout);
  ~Connection();  // cuts the stream
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const room::v1::Joined& joined() const { return joined_; }
  // False when the stream is over or does not keep up.
  bool Send(room::v1::JoinRequest request) { return stream_->Send(std::move(request)); }
  size_t queued() const { return stream_->queued(); }
  // No more requests; the server ends the stream.
  void HalfClose() { stream_->HalfClose(); }
  void Cancel() { stream_->Cancel(); }

  struct Received {
    std::optional<room::v1::JoinResponse> message;
    std::optional<absl::Status> done;  // the stream is over; nothing comes after it
  };
  // The next message, or the end; both empty when `timeout` passed first.
  Received Receive(absl::Duration timeout);

 private:
  struct Inbox;
  Connection() = default;
  absl::Status Open(const std::string& media_url, const room::v1::JoinRoom& join,
                    absl::Duration timeout);

  std::shared_ptr<Inbox> inbox_;
  std::shared_ptr<rpc::ClientBidi<room::v1::JoinRequest, room::v1::JoinResponse>> stream_;
  room::v1::Joined joined_;
};

}  // namespace parley::caller
