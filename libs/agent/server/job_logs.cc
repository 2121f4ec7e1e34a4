#include "agent/server/job_logs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "agent/job/frame.h"
#include "base/clock.h"
#include "base/status.h"
#include "supervise/unique_fd.h"

namespace parley::agent {
namespace {

namespace fs = std::filesystem;
using parley::dispatch::v1::JobLogLine;

constexpr absl::Duration kFlush = absl::Milliseconds(50);
constexpr size_t kMaxPending = 8192;      // lines
constexpr size_t kChunkBytes = 64 << 10;  // of one answer
constexpr size_t kMaxReaders = 64;
constexpr size_t kWriterQueue = 1024;
constexpr char kTemporary[] = "parley-job-logs-";

bool IsFileName(std::string_view id) {
  return !id.empty() && id.size() <= 64 &&
         id.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") ==
             std::string_view::npos;
}

// What an agent server that was killed has left here.
void RemoveOrphans(const fs::path& parent) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    const std::string name = entry.path().filename();
    if (name.rfind(kTemporary, 0) != 0) continue;
    const pid_t owner = std::atoi(name.c_str() + sizeof(kTemporary) - 1);
    if (owner > 0 && kill(owner, 0) != 0 && errno == ESRCH) fs::remove_all(entry.path(), error);
  }
}

int64_t SizeOf(const std::string& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

void ReadLines(const std::string& path, int64_t after, std::vector<JobLogLine>& lines) {
  std::ifstream file(path, std::ios::binary);
  FrameReader reader;
  reader.Append(std::string(std::istreambuf_iterator<char>(file), {}));
  for (;;) {
    const auto frame = reader.Next();
    if (!frame.ok() || !frame->has_value()) return;
    JobLogLine line;
    if (!line.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size()))) return;
    if (line.seq() > after) lines.push_back(std::move(line));
  }
}

}  // namespace

// ---- files ----

JobLogFiles::JobLogFiles(std::string folder, Limits limits)
    : folder_(std::move(folder)), limits_(limits) {}

absl::Status JobLogFiles::Open() {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (!error) fs::permissions(folder_, fs::perms::owner_all, error);
  if (error || access(folder_.c_str(), W_OK) != 0) {
    return FailedPrecondition(
        "logs of jobs cannot be kept in {}: {}; name a folder with --logs-folder", folder_,
        error ? error.message() : std::strerror(errno));
  }
  return absl::OkStatus();
}

std::string JobLogFiles::PathOf(const std::string& job_id) const {
  return folder_ + "/" + job_id + ".log";
}

absl::Status JobLogFiles::Append(const std::string& job_id, std::string_view frames) {
  if (!IsFileName(job_id)) return InvalidArgument("not the id of a job");
  const std::string path = PathOf(job_id);
  auto it = jobs_.find(job_id);
  if (it == jobs_.end()) {
    it = jobs_.try_emplace(job_id).first;
    it->second.place = order_.insert(order_.end(), job_id);
    // A folder that was named may hold lines of an earlier agent server.
    it->second.bytes = SizeOf(path);
    it->second.older = SizeOf(path + ".1");
    bytes_ += it->second.bytes + it->second.older;
  }
  Kept& kept = it->second;
  order_.splice(order_.end(), order_, kept.place);
  if (kept.bytes > 0 && kept.bytes + static_cast<int64_t>(frames.size()) > limits_.job_bytes / 2) {
    if (rename(path.c_str(), (path + ".1").c_str()) == 0) {
      bytes_ -= kept.older;
      kept.older = std::exchange(kept.bytes, 0);
    }
  }
  const supervise::UniqueFd file(
      open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
  if (!file.valid()) return Unavailable("{}: {}", path, std::strerror(errno));
  const ssize_t written = write(file.get(), frames.data(), frames.size());
  if (written != static_cast<ssize_t>(frames.size())) {
    // Half a line would end the file for every reader.
    if (written > 0 && ftruncate(file.get(), kept.bytes) != 0) unlink(path.c_str());
    return Unavailable("{}: {}", path, std::strerror(errno));
  }
  kept.bytes += written;
  bytes_ += written;
  MakeRoom();
  return absl::OkStatus();
}

void JobLogFiles::MakeRoom() {
  while (order_.size() > 1 && (bytes_ > limits_.total_bytes || order_.size() > limits_.jobs)) {
    const auto it = jobs_.find(order_.front());
    unlink(PathOf(it->first).c_str());
    unlink((PathOf(it->first) + ".1").c_str());
    bytes_ -= it->second.bytes + it->second.older;
    jobs_.erase(it);
    order_.pop_front();
  }
}

absl::StatusOr<std::vector<JobLogLine>> JobLogFiles::Read(const std::string& job_id,
                                                          int64_t after) const {
  if (!jobs_.contains(job_id)) return NotFound("nothing is kept of job {} here", job_id);
  std::vector<JobLogLine> lines;
  ReadLines(PathOf(job_id) + ".1", after, lines);
  ReadLines(PathOf(job_id), after, lines);
  return lines;
}

void JobLogFiles::Clear() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

// ---- the loop's side ----

JobLogs::JobLogs(std::shared_ptr<event::Loop> loop, std::string folder, AgentServerMetrics& metrics,
                 log::Logger log)
    : loop_(std::move(loop)),
      metrics_(metrics),
      log_(std::move(log)),
      temporary_(folder.empty()),
      folder_(std::move(folder)),
      timer_(*loop_),
      writer_(1, kWriterQueue) {}

JobLogs::~JobLogs() {
  *self_ = nullptr;
  writer_.Stop();
  if (temporary_ && files_ != nullptr) files_->Clear();
}

absl::Status JobLogs::Open() {
  if (temporary_) {
    std::error_code error;
    const fs::path parent = fs::temp_directory_path(error);
    RemoveOrphans(parent);
    folder_ = (parent / kTemporary).string() + std::to_string(getpid()) + "-XXXXXX";
    if (mkdtemp(folder_.data()) == nullptr) {
      return FailedPrecondition(
          "logs of jobs cannot be kept in {}: {}; name a folder with --logs-folder",
          parent.string(), std::strerror(errno));
    }
  }
  files_ = std::make_shared<JobLogFiles>(folder_, JobLogFiles::Limits());
  return files_->Open();
}

void JobLogs::Append(const std::string& job_id, JobLogLine line) {
  if (pending_.size() >= kMaxPending) return metrics_.log_lines_dropped.Increment();
  last_seq_ = std::max(last_seq_ + 1, absl::ToUnixMicros(Clock::Real().Now()));
  line.set_seq(last_seq_);
  pending_.emplace_back(job_id, std::move(line));
  if (std::exchange(flushing_, true)) return;
  timer_.StartOnce(kFlush, [this] { Flush(); });
}

void JobLogs::Flush() {
  flushing_ = false;
  if (pending_.empty() || files_ == nullptr) return;
  auto lines = std::make_shared<Lines>(std::exchange(pending_, {}));
  const bool posted = writer_.Post([lines, files = files_, loop = loop_, self = self_, log = log_] {
    const auto keep = [&files, &log](const std::string& job_id, std::string& frames) {
      if (absl::Status status = files->Append(job_id, frames); !status.ok()) {
        log.Warn("lines of a job are not kept", {{"job_id", job_id}, {"error", Message(status)}});
      }
      frames.clear();
    };
    std::map<std::string, std::string> frames;
    for (const auto& [job_id, line] : *lines) {
      std::string& waiting = frames[job_id];
      AppendFrame(line.SerializeAsString(), waiting);
      if (waiting.size() > kChunkBytes) keep(job_id, waiting);
    }
    for (auto& [job_id, waiting] : frames) {
      if (!waiting.empty()) keep(job_id, waiting);
    }
    loop->Post([lines, self] {
      if (*self != nullptr) (*self)->Written(*lines);
    });
  });
  if (!posted) metrics_.log_lines_dropped.Increment(static_cast<double>(lines->size()));
}

// A reader that has not caught up finds these on the disk: the writer works in order.
void JobLogs::Written(const Lines& lines) {
  for (auto it = readers_.begin(); it != readers_.end();) {
    const auto reader = it++;
    if (!reader->second.caught_up) continue;
    std::vector<JobLogLine> fresh;
    for (const auto& [job_id, line] : lines) {
      if (job_id == reader->second.job_id && line.seq() > reader->second.sent)
        fresh.push_back(line);
    }
    if (!fresh.empty()) Give(reader->first, reader->second, std::move(fresh), false);
  }
}

void JobLogs::Ended(const std::string& job_id) {
  const bool followed = std::any_of(readers_.begin(), readers_.end(), [&](const auto& reader) {
    return reader.second.job_id == job_id;
  });
  if (!followed) return;
  Flush();
  const bool posted = writer_.Post([job_id, loop = loop_, self = self_] {
    loop->Post([job_id, self] {
      if (*self == nullptr) return;
      auto& readers = (*self)->readers_;
      for (auto it = readers.begin(); it != readers.end();) {
        const auto reader = it++;
        if (reader->second.job_id != job_id) continue;
        reader->second.over = true;
        if (reader->second.caught_up) (*self)->Give(reader->first, reader->second, {}, true);
      }
    });
  });
  if (!posted) ForgetReaders();
}

void JobLogs::Read(const parley::dispatch::v1::ReadLogs& request, bool live, Sink sink) {
  if (request.cancel()) {
    readers_.erase(request.request());
    return;
  }
  Flush();  // what it is about to read
  Reader reader;
  reader.job_id = request.job_id();
  reader.sent = request.after();
  reader.follow = request.follow() && live;
  reader.sink = std::move(sink);
  if (readers_.size() >= kMaxReaders || files_ == nullptr) {
    Give(request.request(), reader, {}, true, "too many read logs here already");
    return;
  }
  readers_[request.request()] = std::move(reader);
  const bool posted =
      writer_.Post([id = request.request(), job_id = request.job_id(), after = request.after(),
                    files = files_, loop = loop_, self = self_] {
        auto lines =
            std::make_shared<absl::StatusOr<std::vector<JobLogLine>>>(files->Read(job_id, after));
        loop->Post([id, lines, self] {
          if (*self != nullptr) (*self)->CaughtUp(id, std::move(*lines));
        });
      });
  if (!posted) Give(request.request(), readers_[request.request()], {}, true, "busy; try again");
}

void JobLogs::CaughtUp(uint64_t request, absl::StatusOr<std::vector<JobLogLine>> lines) {
  const auto it = readers_.find(request);
  if (it == readers_.end()) return;
  Reader& reader = it->second;
  reader.caught_up = true;
  const bool end = !reader.follow || reader.over;
  if (!lines.ok()) {
    Give(request, reader, {}, end, end ? Message(lines.status()) : std::string_view());
  } else {
    Give(request, reader, *std::move(lines), end);
  }
}

bool JobLogs::Give(uint64_t request, Reader& reader, std::vector<JobLogLine> lines, bool end,
                   std::string_view error) {
  const Sink sink = reader.sink;
  size_t next = 0;
  bool more = true;
  do {
    parley::dispatch::v1::ConnectRequest message;
    auto& chunk = *message.mutable_log();
    chunk.set_request(request);
    for (size_t bytes = 0; next < lines.size() && bytes < kChunkBytes; ++next) {
      bytes += lines[next].ByteSizeLong();
      reader.sent = lines[next].seq();
      *chunk.add_lines() = std::move(lines[next]);
    }
    chunk.set_end(end && next == lines.size());
    chunk.set_error(std::string(error));
    more = sink(std::move(message));
  } while (more && next < lines.size());
  if (more && !end) return true;
  readers_.erase(request);
  return false;
}

void JobLogs::ForgetReaders() { readers_.clear(); }

}  // namespace parley::agent
