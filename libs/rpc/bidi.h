#pragma once
// Bidirectional streams over gRPC's callback API, for server and client: all state on one strand,
// one read and one write in flight, a bounded outbox, alive until gRPC is done with it.
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/executor.h"
#include "base/mutex.h"
#include "rpc/callback_threads.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::rpc {

// Server side of one stream. Derive, implement OnMessage and OnClosed, create with Start<T>().
template <typename In, typename Out>
class BidiSession : public grpc::ServerBidiReactor<In, Out> {
 public:
  // Makes the session and begins to read. The returned reactor belongs to gRPC; others may hold `T`
  // by shared_ptr.
  template <typename T, typename... Args>
  static grpc::ServerBidiReactor<In, Out>* Start(Args&&... args) {
    auto session = std::make_shared<T>(std::forward<Args>(args)...);
    BidiSession* base = session.get();
    base->self_ = session;
    base->weak_ = session;
    base->OnStart();
    base->ReadNext();
    return base;
  }

  // Thread-safe. False when the outbox is full or the stream closed: drop, or Close().
  bool Send(Out message) {
    MutexLock lock(&mutex_);
    if (closing_ || outbox_.size() >= outbox_limit_) return false;
    outbox_.push_back(std::move(message));
    if (!writing_) WriteNext();
    return true;
  }

  // Thread-safe, idempotent. What is in the outbox is still sent when `status` is OK, dropped
  // otherwise.
  void Close(const grpc::Status& status) {
    MutexLock lock(&mutex_);
    if (closing_) return;
    closing_ = true;
    final_status_ = status;
    if (!status.ok()) {
      while (outbox_.size() > (writing_ ? 1 : 0)) outbox_.pop_back();
    }
    if (!writing_) FinishOnce();
  }

  size_t queued() const {
    MutexLock lock(&mutex_);
    return outbox_.size();
  }

  // Thread-safe. Was the stream cut, or cancelled by the client? Settled once OnClosed runs.
  bool cancelled() const {
    MutexLock lock(&mutex_);
    return cancelled_;
  }

 protected:
  BidiSession(Executor& executor, size_t outbox_limit)
      : strand_(executor), outbox_limit_(outbox_limit) {}

  virtual void OnStart() {}
  // On the strand. The next message is read after it returns: slow handling slows the sender.
  virtual void OnMessage(const In& message) = 0;
  // Whether OnMessage does so little with this message that gRPC's own thread may do it, where it
  // arrives, when the strand is free: audio, which comes often.
  virtual bool IsQuick(const In& message) const {
    static_cast<void>(message);
    return false;
  }
  // On the strand, once, last: the client left, was cut, or Close() finished.
  virtual void OnClosed() = 0;
  // In a gRPC reaction: a message went out, `left` still wait. Only post.
  virtual void OnSent(size_t left) { static_cast<void>(left); }
  // On the strand: the client sent its last message. Default: Close(OK).
  virtual void OnHalfClose() { Close(grpc::Status::OK); }

  Strand& strand() { return strand_; }
  template <typename T>
  std::shared_ptr<T> Self() {
    return std::static_pointer_cast<T>(weak_.lock());
  }

 private:
  void OnReadDone(bool ok) final {
    CountReaction();
    if (ok && IsQuick(in_) && strand_.TryEnter()) {
      OnMessage(in_);
      strand_.Leave();
      return ReadNext();
    }
    strand_.Post([self = weak_.lock(), this, ok] {
      if (self == nullptr) return;
      if (!ok) return OnHalfClose();
      OnMessage(in_);
      ReadNext();
    });
  }
  void OnWriteDone(bool ok) final {
    CountReaction();
    size_t left = 0;
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      outbox_.pop_front();
      if (!ok) {
        outbox_.clear();
        closing_ = true;
      }
      left = outbox_.size();
      if (!outbox_.empty()) {
        WriteNext();
      } else if (closing_) {
        FinishOnce();
        return;  // may be gone
      }
    }
    OnSent(left);
  }
  void OnCancel() final {
    {
      MutexLock lock(&mutex_);
      cancelled_ = true;
    }
    Close(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled by the client"));
  }
  void OnDone() final {
    auto self = std::move(self_);
    strand_.Post([self, this] { OnClosed(); });
  }
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    this->StartWrite(&outbox_.front());
  }
  void ReadNext() {
    MutexLock lock(&mutex_);
    if (!finished_) this->StartRead(&in_);  // nothing may be started after Finish
  }
  void FinishOnce() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_) return;
    finished_ = true;
    this->Finish(final_status_);
  }

  Strand strand_;
  const size_t outbox_limit_;
  In in_;
  std::shared_ptr<BidiSession> self_;  // until OnDone
  std::weak_ptr<BidiSession> weak_;
  mutable Mutex mutex_;
  std::deque<Out> outbox_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status final_status_ ABSL_GUARDED_BY(mutex_);
};

// Client side of one stream. Callbacks run on gRPC's threads, one after another, and must only
// post.
//
//   auto stream = ClientBidi<ConnectRequest, ConnectResponse>::Open(
//       [&](auto* context, auto* reactor) { stub->async()->Connect(context, reactor); }, options);
template <typename Out, typename In>
class ClientBidi : public grpc::ClientBidiReactor<Out, In> {
 public:
  struct Options {
    std::string bearer;  // token; "" = none
    size_t outbox_limit = 1024;
    std::function<void(In&)> on_message;               // may take what is in it
    std::function<void(const absl::Status&)> on_done;  // once, last
  };
  using Starter = std::function<void(grpc::ClientContext*, grpc::ClientBidiReactor<Out, In>*)>;

  static std::shared_ptr<ClientBidi> Open(const Starter& start, Options options) {
    auto stream = std::shared_ptr<ClientBidi>(new ClientBidi(std::move(options)));
    stream->self_ = stream;
    if (!stream->options_.bearer.empty()) {
      stream->context_.AddMetadata("authorization", "Bearer " + stream->options_.bearer);
    }
    SetTrace(stream->context_);
    start(&stream->context_, stream.get());
    stream->AddHold();  // writes come from outside reactions
    stream->StartRead(&stream->in_);
    stream->StartCall();
    return stream;
  }

  // Thread-safe. False when the outbox is full or the stream is over.
  bool Send(Out message) {
    MutexLock lock(&mutex_);
    if (done_ || half_closed_ || outbox_.size() >= options_.outbox_limit) return false;
    outbox_.push_back(std::move(message));
    if (!writing_) WriteNext();
    return true;
  }
  // Thread-safe, idempotent: no more messages after those in the outbox.
  void HalfClose() {
    MutexLock lock(&mutex_);
    if (half_closed_ || done_) return;
    half_closed_ = true;
    if (!writing_) SendHalfClose();
  }
  // Thread-safe, idempotent: the stream ends with CANCELLED.
  void Cancel() {
    context_.TryCancel();
    MutexLock lock(&mutex_);
    ReleaseHold();
  }
  size_t queued() const {
    MutexLock lock(&mutex_);
    return outbox_.size();
  }

 private:
  explicit ClientBidi(Options options) : options_(std::move(options)) {}

  void OnReadDone(bool ok) final {
    CountReaction();
    if (!ok) {
      MutexLock lock(&mutex_);
      done_ = true;
      ReleaseHold();
      return;
    }
    options_.on_message(in_);
    this->StartRead(&in_);
  }
  void OnWriteDone(bool ok) final {
    CountReaction();
    MutexLock lock(&mutex_);
    writing_ = false;
    outbox_.pop_front();
    if (!ok) {
      outbox_.clear();
      done_ = true;
      ReleaseHold();
      return;
    }
    if (!outbox_.empty()) {
      WriteNext();
    } else if (half_closed_) {
      SendHalfClose();
    }
  }
  void OnDone(const grpc::Status& status) final {
    auto self = std::move(self_);
    options_.on_done(FromGrpcStatus(status));
  }
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    this->StartWrite(&outbox_.front());
  }
  void SendHalfClose() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writes_done_) return;
    writes_done_ = true;
    this->StartWritesDone();
    ReleaseHold();
  }
  void ReleaseHold() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (released_) return;
    released_ = true;
    done_ = done_ || !half_closed_;
    this->RemoveHold();
  }

  Options options_;
  grpc::ClientContext context_;
  In in_;
  std::shared_ptr<ClientBidi> self_;  // until OnDone
  mutable Mutex mutex_;
  std::deque<Out> outbox_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool writes_done_ ABSL_GUARDED_BY(mutex_) = false;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

// Runs `work` on the executor, for the trace that the call names, and finishes the call with the
// status it returns. RESOURCE_EXHAUSTED when the executor is full.
template <typename Work>
grpc::ServerUnaryReactor* Unary(Executor& executor, grpc::CallbackServerContext* context,
                                Work work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (!executor.Post([reactor, trace = TraceOf(*context), work = std::move(work)] {
        const TraceScope scope(trace);
        reactor->Finish(ToGrpcStatus(work()));
      })) {
    reactor->Finish(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                 "the server is busy; try again shortly"));
  }
  return reactor;
}

}  // namespace parley::rpc
