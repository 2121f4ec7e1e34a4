#pragma once
// The job's end of its socket, on the loop.
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "agent/job/frame.h"
#include "event/loop.h"
#include "parley/job/v1/job.pb.h"

namespace parley::agent {

// Loop thread only. Owns the descriptor.
class JobLink {
 public:
  struct Callbacks {
    std::function<void(const parley::job::v1::ToJob&)> on_message;
    // Once: the server is gone, or sent what cannot be read (`error` says what). Nothing follows.
    std::function<void(const std::string& error)> on_closed;
  };
  JobLink(event::Loop& loop, int fd, Callbacks callbacks);
  ~JobLink();
  JobLink(const JobLink&) = delete;
  JobLink& operator=(const JobLink&) = delete;

  // Numbers and sends: at once, or, from within on_message, with what else the messages that came
  // together bring about. A server that leaves 8 MiB unread is as good as gone: then on_closed
  // follows.
  void Send(parley::job::v1::FromJob& message);
  // For audio, which is worth nothing late: dropped when 64 KiB wait already. `more`: kept until
  // the next message is sent, which follows at once.
  void SendFresh(parley::job::v1::FromJob& message, bool more = false);
  // Blocks until everything is out, or `timeout`. For the last message.
  void Flush(absl::Duration timeout);

 private:
  void OnReady(bool readable, bool writable);
  void Read();
  void TakeFrames();
  bool Append(parley::job::v1::FromJob& message);
  void Write();
  void Watch();
  void Close(const std::string& error);

  event::Loop& loop_;
  const int fd_;
  Callbacks callbacks_;
  event::FdWatcher watcher_;
  FrameReader reader_;
  parley::job::v1::ToJob in_;  // reused: parsing into it allocates little
  std::string out_;
  size_t out_start_ = 0;
  std::string scratch_;
  uint64_t seq_ = 0;
  uint64_t last_seq_ = 0;
  bool reading_ = false;  // what is sent goes out together, in the end
  bool watching_writes_ = false;
  bool closed_ = false;
};

}  // namespace parley::agent
