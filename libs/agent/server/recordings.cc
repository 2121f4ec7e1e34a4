#include "agent/server/recordings.h"

#include <absl/time/clock.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>

#include "audio/opus.h"
#include "base/status.h"
#include "base/strings.h"
#include "supervise/unique_fd.h"

namespace parley::agent {
namespace {

namespace fs = std::filesystem;

constexpr char kSession[] = "jsonl";
constexpr char kSound[] = "ogg";
constexpr size_t kMaxWaiting = 64 << 20;
constexpr size_t kWriterQueue = 4096;
constexpr size_t kListed = 200;  // as HeldRecordings takes

bool IsPart(std::string_view text) {
  return !text.empty() && text.size() <= 128 &&
         text.find_first_not_of(
             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") ==
             std::string_view::npos;
}

// PROJECT, SESSION, TOKEN and kind of a file of ours; nothing for others.
std::optional<std::vector<std::string>> PartsOf(const std::string& file_name) {
  std::vector<std::string> parts = Split(file_name, '.');
  const bool ours = parts.size() == 4 && (parts[3] == kSession || parts[3] == kSound) &&
                    std::all_of(parts.begin(), parts.end(), IsPart);
  if (!ours) return std::nullopt;
  return parts;
}

}  // namespace

// ---- files ----

struct RecordingFiles::Writing {
  std::unique_ptr<audio::OggOpusWriter> sound;
  std::string pages;  // made, not written yet
};

RecordingFiles::RecordingFiles(std::string folder, int64_t max_bytes)
    : folder_(std::move(folder)), max_bytes_(max_bytes) {}

RecordingFiles::~RecordingFiles() {
  while (!writing_.empty()) (void)End(std::string(writing_.begin()->first));
}

absl::Status RecordingFiles::Open() {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (!error) fs::permissions(folder_, fs::perms::owner_all, error);
  if (error || access(folder_.c_str(), W_OK) != 0) {
    return FailedPrecondition(
        "recordings cannot be kept in {}: {}; name another folder with "
        "--recordings-folder",
        folder_, error ? error.message() : std::strerror(errno));
  }
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    std::error_code gone;
    const auto size = entry.file_size(gone);
    if (!gone) bytes_ += static_cast<int64_t>(size);
  }
  return absl::OkStatus();
}

std::string RecordingFiles::NameOf(std::string_view project, std::string_view session_id,
                                   uint64_t token) {
  if (!IsPart(project) || !IsPart(session_id)) return "";
  return fmt::format("{}.{}.{}", project, session_id, token);
}

absl::Status RecordingFiles::Append(const std::string& name,
                                    const parley::job::v1::Recording& recording) {
  std::unique_ptr<Writing>& writing = writing_[name];
  if (writing == nullptr) writing = std::make_unique<Writing>();
  if (!recording.session().empty()) {
    PARLEY_RETURN_IF_ERROR(Write(name, kSession, recording.session()));
  }
  if (recording.sound_size() == 0) return absl::OkStatus();
  if (writing->sound == nullptr) {
    audio::OggOpusWriter::Options options;
    writing->sound = std::make_unique<audio::OggOpusWriter>(
        options, [out = writing.get()](std::string_view bytes) { out->pages += bytes; });
  }
  for (const std::string& packet : recording.sound()) {
    if (packet.size() <= audio::OpusEncoder::kMaxPacketBytes) writing->sound->Append(packet);
  }
  writing->sound->Flush();
  const std::string pages = std::exchange(writing->pages, {});
  return Write(name, kSound, pages);
}

absl::Status RecordingFiles::End(const std::string& name) {
  const auto found = writing_.find(name);
  if (found == writing_.end()) return absl::OkStatus();
  const std::unique_ptr<Writing> writing = std::move(found->second);
  writing_.erase(found);
  if (writing->sound == nullptr) return absl::OkStatus();
  writing->sound->End();
  return Write(name, kSound, writing->pages);
}

absl::Status RecordingFiles::Write(const std::string& name, const char* kind,
                                   std::string_view bytes) {
  if (bytes.empty()) return absl::OkStatus();
  if (bytes_ + static_cast<int64_t>(bytes.size()) > max_bytes_) {
    return ResourceExhausted("the recordings' folder holds as much as it may ({} bytes)",
                             max_bytes_);
  }
  const std::string path = fmt::format("{}/{}.{}", folder_, name, kind);
  const supervise::UniqueFd file(
      open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) return Unavailable("{}: {}", path, std::strerror(errno));
  const off_t before = lseek(file.get(), 0, SEEK_END);
  const ssize_t written = write(file.get(), bytes.data(), bytes.size());
  if (written != static_cast<ssize_t>(bytes.size())) {
    // Half a page would be the end for every player.
    if (written > 0 && ftruncate(file.get(), before) != 0) unlink(path.c_str());
    return Unavailable("{}: {}", path, std::strerror(errno));
  }
  bytes_ += written;
  return absl::OkStatus();
}

void RecordingFiles::Erase(std::string_view session_id) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const auto parts = PartsOf(entry.path().filename());
    if (!parts || (*parts)[1] != session_id) continue;
    std::error_code gone;
    const auto size = entry.file_size(gone);
    if (fs::remove(entry.path(), gone)) bytes_ -= static_cast<int64_t>(size);
  }
}

std::vector<RecordingFiles::Held> RecordingFiles::List(std::string_view after, size_t limit) const {
  std::map<std::string, Held> held;  // by session
  std::set<std::string> open;
  for (const auto& [name, writing] : writing_) open.insert(Split(name, '.')[1]);
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const auto parts = PartsOf(entry.path().filename());
    struct stat status {};
    if (!parts || open.contains((*parts)[1]) || stat(entry.path().c_str(), &status) != 0) continue;
    Held& one = held.try_emplace((*parts)[1], Held{(*parts)[0], (*parts)[1], absl::InfinitePast()})
                    .first->second;
    one.written = std::max(one.written, absl::TimeFromTimespec(status.st_mtim));
  }
  std::vector<Held> list;
  for (auto one = held.upper_bound(std::string(after)); one != held.end() && list.size() < limit;
       ++one) {
    list.push_back(std::move(one->second));
  }
  return list;
}

// ---- the loop's side ----

Recordings::Recordings(std::shared_ptr<event::Loop> loop, std::string folder, int64_t max_bytes,
                       AgentServerMetrics& metrics, log::Logger log)
    : loop_(std::move(loop)),
      metrics_(metrics),
      log_(std::move(log)),
      files_(folder.empty() ? nullptr
                            : std::make_shared<RecordingFiles>(std::move(folder), max_bytes)),
      writer_(1, kWriterQueue) {}

Recordings::~Recordings() {
  *self_ = nullptr;
  writer_.Stop();
}

absl::Status Recordings::Open() { return kept() ? files_->Open() : absl::OkStatus(); }

void Recordings::Append(std::string_view project, std::string_view session_id, const JobKey& key,
                        const parley::job::v1::Recording& recording) {
  const std::string name = RecordingFiles::NameOf(project, session_id, key.token);
  const size_t size = recording.ByteSizeLong();
  const auto lost = [this, size](std::string_view why) {
    metrics_.recording_bytes_dropped.Increment(static_cast<double>(size));
    if (std::exchange(told_, true)) return;
    log_.Warn("recordings are incomplete", {{"error", why}});
  };
  if (!kept()) return lost("no folder for recordings was named (--recordings-folder)");
  if (name.empty()) return lost("a project or session that is no part of a file's name");
  if (waiting_bytes_ + size > kMaxWaiting) return lost("the disk does not keep up");
  waiting_bytes_ += size;
  const bool posted =
      writer_.Post([files = files_, name, recording, size, loop = loop_, self = self_, lost] {
        const absl::Status status = files->Append(name, recording);
        loop->Post([self, size, status, lost] {
          if (*self == nullptr) return;
          (*self)->waiting_bytes_ -= size;
          if (status.ok()) {
            (*self)->metrics_.recording_bytes.Increment(static_cast<double>(size));
          } else {
            lost(Message(status));
          }
        });
      });
  if (posted) return;
  waiting_bytes_ -= size;
  lost("the disk does not keep up");
}

void Recordings::End(std::string_view project, std::string_view session_id, const JobKey& key) {
  const std::string name = RecordingFiles::NameOf(project, session_id, key.token);
  if (!kept() || name.empty()) return;
  writer_.PostAdmitted([files = files_, name] { (void)files->End(name); });
}

void Recordings::Erase(std::vector<std::string> session_ids) {
  if (!kept()) return;
  log_.Info("recordings erased with their sessions", {{"sessions", session_ids.size()}});
  writer_.PostAdmitted([files = files_, session_ids = std::move(session_ids)] {
    for (const std::string& one : session_ids) files->Erase(one);
  });
}

void Recordings::List(std::function<void(std::vector<Held>)> listed) {
  if (!kept() || std::exchange(listing_, true)) return;
  writer_.PostAdmitted(
      [files = files_, after = listed_, loop = loop_, self = self_, listed = std::move(listed)] {
        std::vector<Held> held = files->List(after, kListed);
        loop->Post([self, held = std::move(held), listed]() mutable {
          if (*self == nullptr) return;
          (*self)->listing_ = false;
          (*self)->listed_ = held.size() < kListed ? "" : held.back().session_id;
          if (!held.empty()) listed(std::move(held));
        });
      });
}

}  // namespace parley::agent
