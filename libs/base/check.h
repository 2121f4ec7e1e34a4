#pragma once
// The impossible dies here, with file and line; likely trouble is an absl::Status instead.
#include <cstdio>
#include <cstdlib>

#define PARLEY_CHECK(condition)                                                          \
  do {                                                                                   \
    if (!(condition)) [[unlikely]] {                                                     \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)
