#include "rpc/callback_threads.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>

#include "base/clock.h"
#include "rpc/locks.h"

namespace parley::rpc {
namespace {

// Shorter than the second after which a thread that sees nothing naps.
constexpr std::chrono::milliseconds kLook(400);
constexpr int64_t kLookUs = 400'000;
constexpr uint32_t kEnough = 32;     // reactions in kLookUs: one thread is to do them
constexpr uint32_t kFew = 16;        // … all threads are to wait for them
constexpr uint32_t kTooMany = 8000;  // … for one thread: 50 µs each

// A call on a channel that leads nowhere: it fails at once, on one of the threads.
class Nowhere {
 public:
  template <typename Done>
  void Call(Done done) {
    struct State {
      grpc::ClientContext context;
      grpc::Slice nothing;
      grpc::ByteBuffer request{&nothing, 1};
      grpc::ByteBuffer response;
    };
    auto state = std::make_shared<State>();
    stub_.UnaryCall(&state->context, "/", {}, &state->request, &state->response,
                    [state, done](const grpc::Status&) { done(); });
  }

 private:
  grpc::GenericStub stub_{grpc::CreateChannel("", nullptr)};
};

// gRPC 1.51 shuts the queue of its callback API down with the last channel that used it, and races
// with callbacks that are under way then ("prior > 0"). A channel that is never destroyed keeps the
// queue up.
Nowhere& Pin() {
  static Nowhere* const pin = [] {
    TurnOffDeadlockDetector();
    auto* made = new Nowhere;
    made->Call([] {});
    return made;
  }();
  return *pin;
}

std::atomic<uint32_t> reactions{0};
std::atomic<int64_t> looked_us{0};
std::atomic<int> threads{0};  // that have run reactions
std::atomic<int> kept{0};     // … and are kept waiting, or will be

void KeepWaiting() {
  uint32_t since = 0;
  do {
    const uint32_t before = reactions.load(std::memory_order_relaxed);
    std::this_thread::sleep_for(kLook);
    since = reactions.load(std::memory_order_relaxed) - before;
  } while (since >= kFew && since <= kTooMany);
  kept.fetch_sub(1);
}

// After kEnough reactions more.
void Look() {
  const int64_t now_us = Clock::Real().MonotonicMicros();
  const int64_t took_us = now_us - looked_us.exchange(now_us);
  if (took_us > kLookUs || took_us < kLookUs * kEnough / kTooMany) return;
  const int others = threads.load() - 1;
  int none = 0;
  if (others < 1 || !kept.compare_exchange_strong(none, others)) return;
  for (int i = 0; i < others; ++i) Pin().Call(KeepWaiting);
}

}  // namespace

void PrepareCallbackThreads() { Pin(); }

void CountReaction() {
  thread_local const bool known = [] {
    threads.fetch_add(1);
    return true;
  }();
  (void)known;
  if (reactions.fetch_add(1, std::memory_order_relaxed) % kEnough == kEnough - 1) Look();
}

}  // namespace parley::rpc
