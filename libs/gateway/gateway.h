#pragma once
// What the speech and model gateways share: who may call, and the supervision of long streams.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "parley/common/v1/common.pb.h"
#include "service/service.h"
#include "speech/caller.h"

namespace parley::gateway {

// Services and workers (video.agent) may call.
//   Unauthenticated  names the cause
absl::Status RequireCaller(const service::Context& context, std::string_view bearer);

// For whom the call is: the project of the worker's key, or the one that a service names.
//   Unauthenticated  names the cause
absl::StatusOr<speech::Caller> CallerOf(const service::Context& context, std::string_view bearer,
                                        const common::v1::CallContext& call);

// When the answer is of no use any more: the call's own deadline or the context's, InfiniteFuture
// for none.
absl::Time DeadlineOf(const common::v1::CallContext& call);

// The open streams of a gateway: bounded, looked at once a second, waited for at the end.
// Thread-safe.
class Streams {
 public:
  class Member {
   public:
    virtual ~Member() = default;
    // Once a second and when CheckIn() says, on the supervisor's thread: post, do not work. For
    // time limits.
    virtual void Check(absl::Time now) = 0;
  };

  explicit Streams(size_t limit);
  ~Streams();  // WaitEmpty() first

  // False: there are as many as there may be.
  bool Add(Member* key, std::weak_ptr<Member> member);
  void Remove(Member* key);
  // Checks this member once more, after `wait`; a later wish changes nothing before then.
  void CheckIn(Member* key, absl::Duration wait);
  size_t size() const;
  // Members hold what their gateway owns: it may go only after this returned.
  void WaitEmpty();

 private:
  void Run();

  const size_t limit_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::map<Member*, std::weak_ptr<Member>> members_ ABSL_GUARDED_BY(mutex_);
  std::map<Member*, absl::Time> due_ ABSL_GUARDED_BY(mutex_);  // of members, by CheckIn()
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// ResourceExhausted with retry_after_ms.
absl::Status Busy(std::string_view what, size_t limit, std::string_view setting);

}  // namespace parley::gateway
