#pragma once
#include <string>

namespace parley::speech {

// For whom an engine works: budgets, spend and caches are kept by it.
struct Caller {
  std::string project;
  std::string session;  // AS_…; may be empty
};

}  // namespace parley::speech
