// parley-stt-decoder: loads the speech models once and forks a decoder for each stream. Started by
// the pocketsphinx engine, which talks to it over descriptor 3 (control.h). One thread, no gRPC:
// its forks share the models and may be killed at any moment.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <string_view>

#include "base/status.h"
#include "engines/pocketsphinx/control.h"
#include "engines/pocketsphinx/decoder_child.h"
#include "engines/pocketsphinx/recogniser.h"

namespace parley::engines {
namespace {

class Program {
 public:
  Program(Recogniser& recogniser, int signals) : recogniser_(recogniser), signals_(signals) {}

  // Until the gateway is gone.
  void Run() {
    pollfd watched[] = {{kControlFd, POLLIN, 0}, {signals_, POLLIN, 0}};
    while (true) {
      if (poll(watched, 2, -1) < 0) continue;
      if (watched[1].revents != 0) Reap();
      if (watched[0].revents != 0 && !HandleMessage()) return;
    }
  }

 private:
  void Reap() {
    signalfd_siginfo info;
    while (read(signals_, &info, sizeof(info)) > 0) {
    }
    int status = 0;
    for (pid_t pid = waitpid(-1, &status, WNOHANG); pid > 0; pid = waitpid(-1, &status, WNOHANG)) {
      std::erase_if(decoders_, [pid](const auto& entry) { return entry.second == pid; });
    }
  }

  // False when the gateway is gone.
  bool HandleMessage() {
    ControlMessage message;
    iovec part = {&message, sizeof(message)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    const ssize_t got = recvmsg(kControlFd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (got <= 0) return false;
    int fd = -1;
    if (const cmsghdr* rights = CMSG_FIRSTHDR(&header);
        rights != nullptr && rights->cmsg_type == SCM_RIGHTS) {
      std::memcpy(&fd, CMSG_DATA(rights), sizeof(fd));
    }
    if (got == sizeof(message) && message.type == ControlType::kOpen && fd >= 0) Open(message, fd);
    if (got == sizeof(message) && message.type == ControlType::kKill) {
      const auto it = decoders_.find(message.stream);
      // Not yet reaped, so the id is still this decoder's.
      if (it != decoders_.end()) kill(it->second, SIGKILL);
    }
    if (fd >= 0) close(fd);
    return true;
  }

  void Open(const ControlMessage& message, int fd) {
    const pid_t self = getpid();
    const pid_t pid = fork();
    if (pid == 0) {
      close(kControlFd);
      close(signals_);
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      RunDecoder(recogniser_, fd, {message.memory_bytes, message.compile_cpu_s}, self);
    }
    // Where the fork failed the gateway sees its socket close.
    if (pid > 0) decoders_[message.stream] = pid;
  }

  Recogniser& recogniser_;
  const int signals_;
  std::map<uint64_t, pid_t> decoders_;
};

void Say(ControlType type, std::string_view text) {
  ControlMessage message;
  message.type = type;
  message.pid = static_cast<uint32_t>(getpid());
  std::string packet(reinterpret_cast<const char*>(&message), sizeof(message));
  packet += text;
  const ssize_t ignored = send(kControlFd, packet.data(), packet.size(), MSG_NOSIGNAL);
  static_cast<void>(ignored);
}

int Run(const ModelPaths& paths) {
  signal(SIGPIPE, SIG_IGN);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, nullptr);
  const int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  auto recogniser = Recogniser::Load(paths);
  if (!recogniser.ok()) {
    Say(ControlType::kBroken, Message(recogniser.status()));
    return 1;
  }
  Say(ControlType::kLoaded, {});
  Program(**recogniser, signals).Run();
  return 0;
}

}  // namespace
}  // namespace parley::engines

int main(int argc, char** argv) {
  // Only the control socket and standard error are ours.
  close_range(parley::engines::kControlFd + 1, ~0U, 0);
  if (argc != 4 || fcntl(parley::engines::kControlFd, F_GETFD) < 0) {
    std::fputs(
        "parley-stt-decoder is started by parley-stt-gateway and parley dev; it is no command of "
        "its "
        "own\n",
        stderr);
    return 2;
  }
  fcntl(parley::engines::kControlFd, F_SETFD, FD_CLOEXEC);
  return parley::engines::Run({argv[1], argv[2], argv[3]});
}
