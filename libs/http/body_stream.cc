#include "http/body_stream.h"

#include <utility>

namespace parley::http {

bool BodyStream::Write(std::string_view text) {
  {
    MutexLock lock(&mutex_);
    if (over_ || gone_) return false;
    if (waiting_.size() + text.size() > kMaxWaiting) {
      over_ = true;
    } else {
      waiting_ += text;
    }
  }
  Wake();
  MutexLock lock(&mutex_);
  return !over_;
}

void BodyStream::End() {
  {
    MutexLock lock(&mutex_);
    over_ = true;
  }
  Wake();
}

void BodyStream::OnGone(std::function<void()> gone) {
  {
    MutexLock lock(&mutex_);
    if (!gone_) {
      on_gone_ = std::move(gone);
      return;
    }
  }
  gone();
}

void BodyStream::Attach(std::function<void()> wake) {
  {
    MutexLock lock(&mutex_);
    wake_ = std::move(wake);
  }
  Wake();  // for what was written before
}

void BodyStream::Detach() {
  std::function<void()> gone, wake;
  {
    MutexLock lock(&mutex_);
    gone_ = true;
    waiting_ = std::string();
    gone = std::exchange(on_gone_, nullptr);
    wake = std::exchange(wake_, nullptr);
  }
  if (gone) gone();
}

std::string BodyStream::Take(bool* last) {
  MutexLock lock(&mutex_);
  *last = over_;
  return std::exchange(waiting_, std::string());
}

void BodyStream::Wake() {
  MutexLock lock(&mutex_);  // held while waking: Detach waits for it
  if (wake_) wake_();
}

}  // namespace parley::http
