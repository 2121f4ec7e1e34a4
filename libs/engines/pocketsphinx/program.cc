#include "engines/pocketsphinx/program.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/status.h"

extern char** environ;

namespace parley::engines {
namespace {

constexpr size_t kMaxPacketBytes = 4096;

}  // namespace

DecoderProgram::DecoderProgram(event::Loop& loop, std::string binary, ModelPaths models)
    : loop_(loop), binary_(std::move(binary)), models_(std::move(models)) {}

DecoderProgram::~DecoderProgram() = default;

absl::Status DecoderProgram::EnsureLoaded(absl::Duration timeout) {
  const int64_t until = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(timeout);
  MutexLock lock(&mutex_);
  if (state_ == State::kIdle) PARLEY_RETURN_IF_ERROR(Start());
  const uint64_t mine = generation_;
  while (state_ == State::kLoading && generation_ == mine) {
    const int64_t left = until - Clock::Real().MonotonicMicros();
    if (left <= 0) return DeadlineExceeded("the speech models are not loaded yet; try again");
    changed_.WaitFor(&mutex_, absl::Microseconds(left));
  }
  if (state_ == State::kLoaded) return absl::OkStatus();
  return why_ended_.ok() ? Unavailable("the speech decoder ended while loading") : why_ended_;
}

bool DecoderProgram::loaded() const {
  MutexLock lock(&mutex_);
  return state_ == State::kLoaded;
}

pid_t DecoderProgram::pid() const {
  MutexLock lock(&mutex_);
  return pid_;
}

absl::Status DecoderProgram::Start() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return Unavailable("cannot start the speech decoder: {}", std::strerror(errno));
  absl::Status spawned = Spawn(ends[1]);
  close(ends[1]);
  if (!spawned.ok()) {
    close(ends[0]);
    return spawned;
  }
  control_ = ends[0];
  state_ = State::kLoading;
  ++generation_;
  loop_.Post([this, generation = generation_] { Watch(generation); });
  return absl::OkStatus();
}

absl::Status DecoderProgram::Spawn(int child_end) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, child_end, kControlFd);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  // A process group of its own: ^C in a terminal is for the services, which stop it in order.
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::string arguments[] = {binary_, models_.acoustic, models_.dictionary, models_.language};
  char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(),
                  arguments[3].data(), nullptr};
  const int error = posix_spawn(&pid_, binary_.c_str(), &actions, &attributes, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error == 0) return absl::OkStatus();
  pid_ = 0;
  return Unavailable(
      "cannot start the speech decoder {}: {}; it is installed beside the services, or named with "
      "--stt-decoder",
      binary_, std::strerror(error));
}

absl::Status DecoderProgram::Send(const ControlMessage& message, int attached) {
  iovec part = {const_cast<ControlMessage*>(&message), sizeof(message)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (attached >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &attached, sizeof(attached));
  }
  if (state_ != State::kLoaded || sendmsg(control_, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
    return Unavailable("the speech decoder is not there; try again");
  return absl::OkStatus();
}

absl::Status DecoderProgram::Open(const ControlMessage& message, int fd) {
  MutexLock lock(&mutex_);
  return Send(message, fd);
}

void DecoderProgram::Kill(uint64_t stream) {
  ControlMessage message;
  message.type = ControlType::kKill;
  message.stream = stream;
  MutexLock lock(&mutex_);
  Send(message, -1).IgnoreError();  // dead programs have no decoders
}

void DecoderProgram::Watch(uint64_t generation) {
  MutexLock lock(&mutex_);
  if (generation != generation_ || control_ < 0) return;
  watcher_ = std::make_unique<event::FdWatcher>(loop_, control_);
  watcher_->Start(true, false, [this, generation](bool, bool) { OnReadable(generation); });
}

void DecoderProgram::OnReadable(uint64_t generation) {
  MutexLock lock(&mutex_);
  if (generation != generation_ || control_ < 0) return;
  char packet[kMaxPacketBytes];
  const ssize_t got = recv(control_, packet, sizeof(packet), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got < static_cast<ssize_t>(sizeof(ControlMessage)))
    return End(
        Unavailable("the speech decoder ended unexpectedly; the next stream starts it again"));
  ControlMessage message;
  std::memcpy(&message, packet, sizeof(message));
  if (message.type == ControlType::kLoaded) {
    state_ = State::kLoaded;
    changed_.SignalAll();
  } else if (message.type == ControlType::kBroken) {
    const auto text_bytes = static_cast<size_t>(got) - sizeof(message);
    End(Unavailable("{}", std::string_view(packet + sizeof(message), text_bytes)));
  }
}

void DecoderProgram::End(absl::Status why) {
  watcher_.reset();
  if (control_ >= 0) close(control_);
  control_ = -1;
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_ = 0;
  state_ = State::kIdle;
  why_ended_ = std::move(why);
  changed_.SignalAll();
}

void DecoderProgram::Stop() {
  MutexLock lock(&mutex_);
  End(Unavailable("the engine is stopping"));
}

}  // namespace parley::engines
