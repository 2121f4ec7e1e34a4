#include "signals.h"

#include <signal.h>
#include <unistd.h>

#include <thread>

namespace parley::cli {

const std::atomic<bool>& WatchSignals() {
  static std::atomic<bool> stop{false};  // outlives the detached thread that sets it
  std::thread([] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    int number = 0;
    sigwait(&set, &number);
    stop.store(true);
    sigwait(&set, &number);
    _exit(128 + number);
  }).detach();
  return stop;
}

}  // namespace parley::cli
