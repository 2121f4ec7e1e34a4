#pragma once
// Counts what a program allocates through `new`: replaces the operators, so one source of a program
// may include it.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace parley::testing {

// Since the program's start, of all threads.
inline std::atomic<int64_t> allocations{0};

}  // namespace parley::testing

void* operator new(size_t bytes) {
  parley::testing::allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
