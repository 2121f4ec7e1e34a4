#include "supervise/terminal.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace parley::supervise {

void TakeTerminal() {
  if (!isatty(STDIN_FILENO)) return;
  sigset_t ttou;  // who asks from the background would be stopped
  sigemptyset(&ttou);
  sigaddset(&ttou, SIGTTOU);
  pthread_sigmask(SIG_BLOCK, &ttou, nullptr);
  tcsetpgrp(STDIN_FILENO, getpgrp());
  pthread_sigmask(SIG_UNBLOCK, &ttou, nullptr);
}

}  // namespace parley::supervise
