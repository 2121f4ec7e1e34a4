// Linked into what runs under ThreadSanitizer only. Debian's gRPC is not instrumented: what orders
// the two ends of an operation (locks and queues of its own) is out of the sanitizer's sight, and
// each message that goes from one thread to another looks like a race. These stand in front of the
// library's functions of the same names and say what it promises: what was done before an operation
// was started was done before its completion is told, and before its message is read. One order for
// all operations, for there is no hook at the end of a single one: of races between two threads
// that both use gRPC some stay unseen, of those between threads that do not (media, engines,
// executors) none.
#include <dlfcn.h>
#include <grpc/grpc.h>
#include <sanitizer/tsan_interface.h>

namespace {

char g_operations;  // an address to order by

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

// Of libraries that are not instrumented only what they do to our memory in our name counts.
const char* __tsan_default_options() {  // NOLINT(bugprone-reserved-identifier)
  return "ignore_noninstrumented_modules=1 second_deadlock_stack=1";
}

// gRPC's own templates, which are compiled with our code, hand over to each other by way of the
// library, and end what they call without a message that would pass by here. What they call of ours
// on gRPC's threads is passed over with them; it does no more than post to where the work is done.
const char* __tsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "race:grpc::internal::\nrace_top:grpc::\nrace_top:grpc_\n";
}

grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t count, void* tag,
                                      void* reserved) {
  static auto* const next = Next<decltype(grpc_call_start_batch)>("grpc_call_start_batch");
  __tsan_release(&g_operations);
  return next(call, ops, count, tag, reserved);
}

void grpc_server_start(grpc_server* server) {
  static auto* const next = Next<decltype(grpc_server_start)>("grpc_server_start");
  __tsan_release(&g_operations);
  next(server);
}

int grpc_byte_buffer_reader_init(grpc_byte_buffer_reader* reader, grpc_byte_buffer* buffer) {
  static auto* const next =
      Next<decltype(grpc_byte_buffer_reader_init)>("grpc_byte_buffer_reader_init");
  __tsan_acquire(&g_operations);
  return next(reader, buffer);
}

grpc_event grpc_completion_queue_next(grpc_completion_queue* queue, gpr_timespec deadline,
                                      void* reserved) {
  static auto* const next =
      Next<decltype(grpc_completion_queue_next)>("grpc_completion_queue_next");
  const grpc_event event = next(queue, deadline, reserved);
  __tsan_acquire(&g_operations);
  return event;
}

grpc_event grpc_completion_queue_pluck(grpc_completion_queue* queue, void* tag,
                                       gpr_timespec deadline, void* reserved) {
  static auto* const next =
      Next<decltype(grpc_completion_queue_pluck)>("grpc_completion_queue_pluck");
  const grpc_event event = next(queue, tag, deadline, reserved);
  __tsan_acquire(&g_operations);
  return event;
}

}  // extern "C"
