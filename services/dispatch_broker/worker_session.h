#pragma once
#include <absl/time/time.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "auth/token.h"
#include "dispatch_broker/broker.h"
#include "dispatch_broker/convert.h"
#include "rpc/bidi.h"

namespace parley::dispatch_broker {

class LogStream;

// One agent server's stream. Its calls to the store block, so all of it runs on a strand of the
// executor. Words that the store cannot take wait here, bounded; a stream that ends loses none of
// them, because the worker's next report says them again.
class WorkerSession : public rpc::BidiSession<v1::ConnectRequest, v1::ConnectResponse> {
 public:
  WorkerSession(Broker& broker, absl::StatusOr<auth::Claims> caller);
  ~WorkerSession() override;

  // Set once registered; constant from then on. Thread-safe.
  const std::string& worker_id() const { return worker_id_; }
  const std::string& pool() const { return pool_; }

  // All thread-safe; they only post.
  void Tell(const job::Message& message);
  void HeartbeatDone(uint64_t seq, bool store_available, bool replaced);
  // Until the report is here, words of this stream are dropped: it says them. Asking twice is
  // asking once.
  void AskForReport();
  void OnStoreBack();
  // Asks the worker for lines of a job; `request`'s number is filled in. `reader` gets them, or an
  // end when the stream is over.
  void ReadLogs(std::weak_ptr<LogStream> reader, v1::ReadLogs request);
  void ForgetReader(const LogStream* reader);

 private:
  struct HeldWord {
    job::Word word;
    std::string session_report;  // serialized; with ENDED
  };
  struct Started {
    uint64_t token = 0;
    absl::Time create_time;
  };

  void OnStart() override;
  void OnMessage(const v1::ConnectRequest& message) override;
  void OnClosed() override;

  void OnRegister(const v1::Register& request);
  absl::Status Authorise(const job::Registration& registration) const;
  absl::Status ClaimNames();
  absl::Status RegisterWith(const job::Registration& registration);
  void OnHeartbeat(const v1::Heartbeat& heartbeat);
  void OnReport(const v1::Report& report);
  void HoldEnds(const v1::Report& report);
  void OnWords(const v1::Words& words);
  void OnLog(const v1::JobLogChunk& chunk);
  void OnCheckpoints(const v1::Checkpoints& checkpoints);
  void OnHeldRecordings(const v1::HeldRecordings& held);
  void OnStalls(const v1::Stalls& stalls);
  void OnAskHandOver(const v1::AskHandOver& ask);
  void ApplyHeld();
  void NoteVerdict(const HeldWord& held, const job::WordVerdict& verdict);
  void SaveReport(const HeldWord& held);
  void SaveStart(const job::Assignment& assignment);
  void NoteOutcome(const HeldWord& held, const job::WordVerdict& verdict);

  void Handle(const job::Message& message);
  void KeepUntold(const job::Message& message);
  void CatchUp();
  void NoteBehind();
  void SendOffer(const job::Message& message);
  void SendGo(const job::Message& message);
  void SendHandOver(const job::Message& message);
  void SendTakeOver(const job::Message& message);
  std::string RoomToken(const job::Assignment& assignment) const;
  double MedianLoad(double load);
  void Fail(const absl::Status& status);
  void SendOrClose(v1::ConnectResponse response);

  Broker& broker_;
  const absl::StatusOr<auth::Claims> caller_;
  std::string worker_id_;  // set before the session is in the table
  std::string pool_;
  job::Registration registration_;
  bool registered_ = false;
  bool awaiting_report_ = false;
  bool report_due_ = false;  // the store went away before it was asked for, or before it was stored
  std::deque<double> loads_;  // the last five
  std::deque<HeldWord> held_;
  std::deque<job::Message> untold_;  // the store went away before their records could be read
  std::atomic<bool> behind_{false};  // one of the three above has something, as NoteBehind() saw
  std::map<std::string, Started> starting_;  // jobs that have not said that they run
  struct Reader {
    const LogStream* key = nullptr;
    std::weak_ptr<LogStream> stream;
  };
  std::map<uint64_t, Reader> readers_;  // by the number of their request
  uint64_t log_requests_ = 0;
  absl::Time names_claimed_ = absl::InfinitePast();
};

}  // namespace parley::dispatch_broker
