#include "job_redis/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/status.h"

namespace parley::job {
namespace {

constexpr absl::Duration kKeep = absl::Seconds(60);
constexpr int64_t kFileUs = 30'000'000;
constexpr size_t kFileBytes = 64u << 20;
constexpr size_t kMaxWaiting = 64u << 20;
constexpr uint32_t kMaxFact = 4u << 20;  // a record of a dispatch is below 1 MiB
constexpr std::string_view kPrefix = "journal-";

// A fact: size and checksum of what follows; ms since 1970, then each text behind its size: the
// pool, the parts. All numbers little-endian.
constexpr size_t kHead = 8;

uint32_t Checksum(std::string_view bytes) {
  return static_cast<uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

template <typename T>
void Put(T value, std::string& out) {
  for (size_t i = 0; i < sizeof value; ++i) {
    out += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
  }
}
template <typename T>
T Take(std::string_view& bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  bytes.remove_prefix(sizeof(T));
  return static_cast<T>(value);
}

void PutText(std::string_view text, std::string& out) {
  Put(static_cast<uint32_t>(text.size()), out);
  out += text;
}

bool ParseFact(std::string_view body, JournalFact& fact) {
  if (body.size() < sizeof(int64_t)) return false;
  fact.time = absl::FromUnixMillis(Take<int64_t>(body));
  std::vector<std::string> texts;
  while (!body.empty()) {
    if (body.size() < sizeof(uint32_t)) return false;
    const auto size = Take<uint32_t>(body);
    if (size > body.size()) return false;
    texts.emplace_back(body.substr(0, size));
    body.remove_prefix(size);
  }
  if (texts.size() < 2) return false;
  fact.pool = std::move(texts.front());
  fact.parts.assign(std::make_move_iterator(texts.begin() + 1),
                    std::make_move_iterator(texts.end()));
  return true;
}

absl::Status Failed(std::string_view what, const std::string& path) {
  return WithReason(Unavailable("{} {}: {}", what, path, std::strerror(errno)), "JOURNAL_FAILED",
                    {{"retry_after_ms", "1000"}});
}

std::string PathOf(const std::string& directory, uint64_t number) {
  return fmt::format("{}/{}{}", directory, kPrefix, number);
}

}  // namespace

std::vector<JournalFact> ParseJournal(std::string_view bytes, size_t* good) {
  std::vector<JournalFact> facts;
  const size_t all = bytes.size();
  *good = 0;
  while (bytes.size() >= kHead) {
    std::string_view head = bytes.substr(0, kHead);
    const auto size = Take<uint32_t>(head);
    const auto sum = Take<uint32_t>(head);
    if (size > kMaxFact || size > bytes.size() - kHead) break;
    const std::string_view body = bytes.substr(kHead, size);
    JournalFact fact;
    if (Checksum(body) != sum || !ParseFact(body, fact)) break;
    facts.push_back(std::move(fact));
    bytes.remove_prefix(kHead + size);
    *good = all - bytes.size();
  }
  return facts;
}

Journal::Journal(std::string directory, const Clock& clock)
    : directory_(std::move(directory)), clock_(clock) {}

Journal::~Journal() {
  if (fd_ >= 0) close(fd_);
  if (lock_fd_ >= 0) close(lock_fd_);
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& directory,
                                                       const Clock& clock) {
  std::unique_ptr<Journal> journal(new Journal(directory, clock));
  PARLEY_RETURN_IF_ERROR(journal->Lock());
  PARLEY_RETURN_IF_ERROR(journal->ReadOld());
  if (absl::Status status = journal->NextFile(); !status.ok()) {
    return FailedPrecondition("{}", Message(status));
  }
  return journal;
}

absl::Status Journal::Lock() {
  if (mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) {
    return FailedPrecondition("cannot make {}: {}", directory_, std::strerror(errno));
  }
  lock_fd_ = open((directory_ + "/lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (lock_fd_ < 0) {
    return FailedPrecondition("cannot write into {}: {}", directory_, std::strerror(errno));
  }
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    return FailedPrecondition("{} belongs to another broker: each needs one of its own",
                              directory_);
  }
  return absl::OkStatus();
}

absl::Status Journal::ReadOld() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    const std::string name = entry.path().filename();
    File file;
    if (!name.starts_with(kPrefix)) continue;
    const auto [end, bad] =
        std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), file.number);
    if (bad != std::errc() || end != name.data() + name.size()) continue;
    file.last_us = clock_.MonotonicMicros();  // at the latest
    older_.push_back(file);
  }
  if (error) return FailedPrecondition("cannot read {}: {}", directory_, error.message());
  std::sort(older_.begin(), older_.end(),
            [](const File& a, const File& b) { return a.number < b.number; });
  const absl::Time from = clock_.Now() - kKeep;
  std::vector<JournalFact> facts;
  for (const File& file : older_) {
    std::ifstream in(PathOf(directory_, file.number), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    size_t good = 0;
    for (JournalFact& fact : ParseJournal(bytes, &good)) {
      if (fact.time >= from) facts.push_back(std::move(fact));
    }
    number_ = file.number;
  }
  MutexLock lock(&mutex_);
  old_ = std::move(facts);
  return absl::OkStatus();
}

std::vector<JournalFact> Journal::TakeOld() {
  MutexLock lock(&mutex_);
  return std::exchange(old_, {});
}

absl::Status Journal::NextFile() {
  if (fd_ >= 0) {
    close(fd_);
    fd_ = -1;
    older_.push_back({number_, clock_.MonotonicMicros()});
  }
  RemoveStale();
  const std::string path = PathOf(directory_, ++number_);
  fd_ = open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
  if (fd_ < 0) return Failed("cannot make", path);
  // The name itself must survive, too.
  const int folder = open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = folder >= 0 && fsync(folder) == 0;
  if (folder >= 0) close(folder);
  file_bytes_ = 0;
  begun_us_ = clock_.MonotonicMicros();
  return synced ? absl::OkStatus() : Failed("cannot sync", directory_);
}

void Journal::RemoveStale() {
  const int64_t now = clock_.MonotonicMicros();
  std::erase_if(older_, [&](const File& file) {
    if (now - file.last_us <= absl::ToInt64Microseconds(kKeep)) return false;
    unlink(PathOf(directory_, file.number).c_str());
    return true;
  });
}

absl::Status Journal::Append(std::string_view pool, const std::vector<std::string>& parts) {
  std::string body;
  Put(absl::ToUnixMillis(clock_.Now()), body);
  PutText(pool, body);
  for (const std::string& part : parts) PutText(part, body);
  if (body.size() > kMaxFact) {
    return ResourceExhausted("a record of {} bytes is too large for the journal", body.size());
  }
  std::string head;
  Put(static_cast<uint32_t>(body.size()), head);
  Put(Checksum(body), head);
  MutexLock lock(&mutex_);
  while (waiting_.size() > kMaxWaiting) {
    mutex_.Unlock();
    const absl::Status status = Commit();
    mutex_.Lock();
    PARLEY_RETURN_IF_ERROR(status);
  }
  waiting_ += head;
  waiting_ += body;
  ++appended_;
  return absl::OkStatus();
}

absl::Status Journal::Commit() {
  MutexLock lock(&mutex_);
  const uint64_t wanted = appended_;
  while (durable_ < wanted) {
    if (writing_) {
      changed_.Wait(&mutex_);
      continue;
    }
    writing_ = true;
    std::string bytes = std::exchange(waiting_, {});
    const uint64_t upto = appended_;
    mutex_.Unlock();
    const absl::Status status = Write(bytes);
    mutex_.Lock();
    writing_ = false;
    changed_.SignalAll();
    if (!status.ok()) {
      waiting_.insert(0, bytes);
      return status;
    }
    durable_ = upto;
  }
  return absl::OkStatus();
}

absl::Status Journal::Write(std::string_view bytes) {
  if (fd_ < 0 || file_bytes_ > kFileBytes || clock_.MonotonicMicros() - begun_us_ > kFileUs) {
    PARLEY_RETURN_IF_ERROR(NextFile());
  }
  file_bytes_ += bytes.size();
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  if (bytes.empty() && fdatasync(fd_) == 0) return absl::OkStatus();
  const absl::Status status = Failed("cannot write", PathOf(directory_, number_));
  // What follows a torn fact would not be read: the next try has a file of its own.
  close(fd_);
  fd_ = -1;
  older_.push_back({number_, clock_.MonotonicMicros()});
  return status;
}

}  // namespace parley::job
