#include "engines/pocketsphinx/decoder_child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/status.h"
#include "engines/pocketsphinx/frames.h"

namespace parley::engines {
namespace {

constexpr int kSampleRateHz = 16000;
constexpr size_t kSliceSamples = kSampleRateHz / 10;
constexpr size_t kPartialEverySamples = kSampleRateHz / 5;
// CPU that one slice of 0.1 s may take: a sane grammar needs 2 ms, free speech 30 ms.
constexpr rlim_t kSliceCpuSeconds = 3;
constexpr size_t kSignalStackBytes = 64 << 10;

// What signal and exit handlers say; made in advance because they may not allocate.
struct LastWords {
  int fd = -1;
  std::atomic<bool> decoding{false};  // ready was said
  std::string compile_cpu;
  std::string compile_crash;
  std::string decode_cpu;
  std::string decode_crash;
};
LastWords& Words() {
  static LastWords words;
  return words;
}

void SayAndExit(bool cpu) {
  const LastWords& words = Words();
  const std::string& frame = words.decoding.load()
                                 ? (cpu ? words.decode_cpu : words.decode_crash)
                                 : (cpu ? words.compile_cpu : words.compile_crash);
  const ssize_t ignored = write(words.fd, frame.data(), frame.size());
  static_cast<void>(ignored);
  _exit(1);
}

extern "C" void OnFatalSignal(int signal_number) { SayAndExit(signal_number == SIGXCPU); }
// The library calls exit() when memory runs out.
extern "C" void OnLibraryExit() { SayAndExit(false); }

void PrepareLastWords(int fd) {
  LastWords& words = Words();
  words.fd = fd;
  const auto refused = [](std::string_view why) {
    return EncodeFrame(
        FrameType::kError,
        EncodeStatus(WithReason(
            InvalidArgument("grammar refused: {}; make it smaller: fewer nested rules", why),
            "GRAMMAR_REFUSED")));
  };
  const auto ended = [](std::string_view why) {
    return EncodeFrame(FrameType::kError, EncodeStatus(ResourceExhausted(
                                              "the recogniser {}; the stream is over", why)));
  };
  words.compile_cpu = refused("compiling it takes too long");
  words.compile_crash = refused("compiling it takes too much memory");
  words.decode_cpu = ended("took too much CPU time for its audio");
  words.decode_crash = ended("took too much memory or crashed");
  static char stack[kSignalStackBytes];
  stack_t alternative = {};
  alternative.ss_sp = stack;
  alternative.ss_size = sizeof(stack);
  sigaltstack(&alternative, nullptr);
  struct sigaction action = {};
  action.sa_handler = &OnFatalSignal;
  action.sa_flags = SA_ONSTACK;
  for (const int number : {SIGXCPU, SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL})
    sigaction(number, &action, nullptr);
  atexit(&OnLibraryExit);
}

int64_t AddressSpaceBytes() {
  FILE* file = fopen("/proc/self/statm", "re");
  long pages = 0;
  if (file != nullptr) {
    if (fscanf(file, "%ld", &pages) != 1) pages = 0;
    fclose(file);
  }
  return pages * sysconf(_SC_PAGESIZE);
}

// The soft limit is what counts; it moves on with the work that was rightly done.
void AllowCpuSeconds(rlim_t more) {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto used = static_cast<rlim_t>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec);
  rlimit limit = {};
  getrlimit(RLIMIT_CPU, &limit);
  limit.rlim_cur = used + 1 + more;
  setrlimit(RLIMIT_CPU, &limit);
}

void LimitMemory(int64_t bytes) {
  const auto limit = static_cast<rlim_t>(AddressSpaceBytes() + bytes);
  const rlimit memory = {limit, limit};
  setrlimit(RLIMIT_AS, &memory);
}

// The library prints to standard error before it gives up; what matters goes through the socket.
void SilenceLibrary() {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null >= 0) dup2(null, STDERR_FILENO);
#endif
}

// After this the process can open nothing more and start nothing.
void CloseDoors() {
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_FSIZE, &none);
  setrlimit(RLIMIT_NOFILE, &none);
  setrlimit(RLIMIT_NPROC, &none);
  setrlimit(RLIMIT_CORE, &none);
}

class Child {
 public:
  Child(Recogniser& recogniser, int fd) : recogniser_(recogniser), fd_(fd) {}

  // Until the gateway closes the socket (OK) or something fails.
  absl::Status Run(const DecoderLimits& limits);

 private:
  absl::StatusOr<std::optional<Frame>> ReadFrame();  // nullopt: the gateway closed
  void Send(FrameType type, std::string_view payload);
  absl::Status OnAudio(const std::string& bytes);
  absl::Status OnEnd(uint64_t utterance);

  Recogniser& recogniser_;
  const int fd_;
  FrameReader reader_;
  bool interim_ = false;
  size_t since_partial_ = 0;
  std::string last_partial_;
};

absl::StatusOr<std::optional<Frame>> Child::ReadFrame() {
  while (true) {
    PARLEY_ASSIGN_OR_RETURN(std::optional<Frame> frame, reader_.Next());
    if (frame.has_value()) return frame;
    char bytes[32 << 10];
    const ssize_t got = read(fd_, bytes, sizeof(bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return std::optional<Frame>();
    reader_.Append({bytes, static_cast<size_t>(got)});
  }
}

void Child::Send(FrameType type, std::string_view payload) {
  const std::string frame = EncodeFrame(type, payload);
  std::string_view rest = frame;
  while (!rest.empty()) {
    const ssize_t sent = write(fd_, rest.data(), rest.size());
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) _exit(0);  // nobody listens any more
    rest.remove_prefix(static_cast<size_t>(sent));
  }
}

absl::Status Child::OnAudio(const std::string& bytes) {
  if (bytes.size() % sizeof(int16_t) != 0) return InvalidArgument("half a sample of audio");
  std::vector<int16_t> samples(bytes.size() / sizeof(int16_t));
  std::memcpy(samples.data(), bytes.data(), bytes.size());
  std::span<const int16_t> rest(samples);
  while (!rest.empty()) {
    const auto slice = rest.first(std::min(rest.size(), kSliceSamples));
    rest = rest.subspan(slice.size());
    AllowCpuSeconds(kSliceCpuSeconds);
    PARLEY_RETURN_IF_ERROR(recogniser_.Process(slice));
    since_partial_ += slice.size();
    if (!interim_ || since_partial_ < kPartialEverySamples) continue;
    since_partial_ = 0;
    speech::SttTranscript partial;
    partial.text = recogniser_.Partial();
    if (partial.text.empty() || partial.text == last_partial_) continue;
    last_partial_ = partial.text;
    Send(FrameType::kPartial, EncodeTranscript(partial));
  }
  return absl::OkStatus();
}

absl::Status Child::OnEnd(uint64_t utterance) {
  AllowCpuSeconds(kSliceCpuSeconds);
  PARLEY_ASSIGN_OR_RETURN(speech::SttTranscript final, recogniser_.End());
  final.utterance = utterance;
  last_partial_.clear();
  since_partial_ = 0;
  Send(FrameType::kFinal, EncodeTranscript(final));
  return absl::OkStatus();
}

absl::Status Child::Run(const DecoderLimits& limits) {
  PARLEY_ASSIGN_OR_RETURN(const std::optional<Frame> first, ReadFrame());
  if (!first.has_value()) return absl::OkStatus();
  if (first->type != FrameType::kConfig) return InvalidArgument("the first frame is no config");
  PARLEY_ASSIGN_OR_RETURN(const DecoderConfig config, DecodeDecoderConfig(first->payload));
  interim_ = config.interim_results;
  AllowCpuSeconds(static_cast<rlim_t>(limits.compile_cpu_s));
  LimitMemory(limits.memory_bytes);
  // Hints are read through a file of their own; a grammar may open nothing.
  if (!config.grammar.empty()) CloseDoors();
  PARLEY_RETURN_IF_ERROR(config.grammar.empty() ? recogniser_.UseLanguageModel(config.phrases)
                                                : recogniser_.UseGrammar(config.grammar));
  CloseDoors();
  Words().decoding.store(true);
  Send(FrameType::kReady, EncodeUint(static_cast<uint64_t>(getpid())));
  while (true) {
    PARLEY_ASSIGN_OR_RETURN(const std::optional<Frame> frame, ReadFrame());
    if (!frame.has_value()) return absl::OkStatus();
    switch (frame->type) {
      case FrameType::kAudio:
        PARLEY_RETURN_IF_ERROR(OnAudio(frame->payload));
        break;
      case FrameType::kEndUtterance: {
        PARLEY_ASSIGN_OR_RETURN(const uint64_t utterance, DecodeUint(frame->payload));
        PARLEY_RETURN_IF_ERROR(OnEnd(utterance));
        break;
      }
      case FrameType::kReset:
        recogniser_.Reset();
        last_partial_.clear();
        since_partial_ = 0;
        break;
      default:
        return InvalidArgument("a frame of an unknown type");
    }
  }
}

}  // namespace

void RunDecoder(Recogniser& recogniser, int fd, const DecoderLimits& limits, int parent_pid) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent_pid) _exit(0);
  prctl(PR_SET_NAME, "stt-decoder");
  PrepareLastWords(fd);
  SilenceLibrary();
  Child child(recogniser, fd);
  if (const absl::Status status = child.Run(limits); !status.ok()) {
    const std::string frame = EncodeFrame(FrameType::kError, EncodeStatus(status));
    const ssize_t ignored = write(fd, frame.data(), frame.size());
    static_cast<void>(ignored);
  }
  _exit(0);
}

}  // namespace parley::engines
