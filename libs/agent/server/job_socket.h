#pragma once
// The server's end of one job's socket, on the loop.
#include <functional>
#include <memory>
#include <string>

#include "agent/job/frame.h"
#include "event/loop.h"
#include "parley/job/v1/job.pb.h"
#include "supervise/unique_fd.h"

namespace parley::agent {

// Loop thread only. Callbacks may destroy the socket.
class JobSocket {
 public:
  struct Callbacks {
    std::function<void(const parley::job::v1::FromJob&)> on_message;
    // Once: the job closed its end, or sent what cannot be read (`error` says what).
    std::function<void(const std::string& error)> on_closed;
  };
  JobSocket(event::Loop& loop, supervise::UniqueFd fd, Callbacks callbacks);
  ~JobSocket();

  // Numbers, stamps and sends. False when the job is gone or has left 8 MiB unread: it hangs.
  bool Send(parley::job::v1::ToJob& message);
  // For audio: also false, and nothing is sent, when more than half a second waits already, unless
  // it is to go in `any_case`. `wait`: it may wait for the next message that may not.
  bool SendFresh(parley::job::v1::ToJob& message, bool wait, bool any_case = false);
  // What waits goes now.
  void SendWaiting();
  // Reads what is there, to the end: for a job that has exited.
  void Drain();
  size_t backlog() const { return out_.size() - out_start_; }

 private:
  void OnReady(bool readable, bool writable);
  bool Append(parley::job::v1::ToJob& message);
  void Read(int reads);
  void Flush();
  void Watch();
  void Close(const std::string& error);

  event::Loop& loop_;
  supervise::UniqueFd fd_;
  Callbacks callbacks_;
  std::unique_ptr<event::FdWatcher> watcher_;
  FrameReader reader_;
  parley::job::v1::FromJob in_;
  std::string out_;
  size_t out_start_ = 0;
  std::string scratch_;
  uint64_t seq_ = 0;
  bool watching_writes_ = false;
  bool closed_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace parley::agent
