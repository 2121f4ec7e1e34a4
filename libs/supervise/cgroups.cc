#include "supervise/cgroups.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace parley::supervise {
namespace {

constexpr char kMain[] = "/parley-main";
constexpr char kJob[] = "/parley-job-";
constexpr char kMaxThreads[] = "512";  // of one job

std::string ReadAll(const std::string& path) {
  std::string text;
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char buffer[4096];
  for (ssize_t got = 0; file.valid() && (got = read(file.get(), buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<size_t>(got));
  }
  return text;
}

// 0, or an errno.
int WriteText(const std::string& path, std::string_view text) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid()) return errno;
  return write(file.get(), text.data(), text.size()) < 0 ? errno : 0;
}

bool HasWord(const std::string& text, std::string_view word) {
  for (const std::string& line : Split(text, '\n')) {
    const std::vector<std::string> words = Split(line, ' ');
    if (std::find(words.begin(), words.end(), word) != words.end()) return true;
  }
  return false;
}

// Where this process's group is, as a folder.
absl::StatusOr<std::string> OwnGroup() {
  std::string path;
  for (const std::string& line : Split(ReadAll("/proc/self/cgroup"), '\n')) {
    if (line.rfind("0::", 0) == 0) path = line.substr(3);
  }
  if (path.empty() || path.rfind("/..", 0) == 0) {
    return FailedPrecondition("this process is in no group of cgroup v2 that it can see");
  }
  for (const std::string& line : Split(ReadAll("/proc/self/mountinfo"), '\n')) {
    // 30 23 0:26 ROOT MOUNT_POINT options [tags] - cgroup2 …
    const size_t type = line.find(" - cgroup2 ");
    if (type == std::string::npos) continue;
    const std::vector<std::string> fields = Split(line.substr(0, type), ' ');
    if (fields.size() < 5) continue;
    const std::string root = fields[3] == "/" ? "" : fields[3];
    if (path.rfind(root, 0) != 0) continue;
    std::string folder = fields[4] + path.substr(root.size());
    while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
    return folder;
  }
  return FailedPrecondition("cgroup v2 is not mounted");
}

bool IsDelegated(const std::string& folder) {
  struct stat info {};
  if (stat(folder.c_str(), &info) != 0) return false;
  if (info.st_uid != 0 && info.st_uid == geteuid()) return true;
  char mark[8] = "";
  for (const char* name : {"user.delegate", "trusted.delegate"}) {
    if (getxattr(folder.c_str(), name, mark, sizeof mark) > 0 && mark[0] == '1') return true;
  }
  // The top of what we see, but not of the host's tree, which has no events: a container's own.
  const bool top = ReadAll("/proc/self/cgroup").find("0::/\n") != std::string::npos;
  return top && access((folder + "/cgroup.events").c_str(), F_OK) == 0;
}

// What a zygote that was killed has left: empty, since its jobs died with it.
void RemoveOrphans(const std::string& parent) {
  DIR* const folder = opendir(parent.c_str());
  if (folder == nullptr) return;
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name.rfind(kJob + 1, 0) != 0) continue;
    const pid_t zygote = std::atoi(name.c_str() + sizeof(kJob) - 2);
    if (kill(zygote, 0) != 0 && errno == ESRCH) rmdir((parent + "/" + name).c_str());
  }
  closedir(folder);
}

absl::Status Refused(std::string_view what, int error) {
  return FailedPrecondition("{}: {}", what, std::strerror(error));
}

// Processes of `folder` into `main`, if they are all ours.
absl::Status MoveResidents(const std::string& folder, const std::string& main,
                           std::vector<pid_t> ours) {
  ours.push_back(getpid());
  for (const std::string& line : Split(ReadAll(folder + "/cgroup.procs"), '\n')) {
    const pid_t pid = std::atoi(line.c_str());
    if (pid == 0 || std::find(ours.begin(), ours.end(), pid) != ours.end()) continue;
    return FailedPrecondition("the group {} has other processes, such as {}", folder, pid);
  }
  if (mkdir(main.c_str(), 0755) != 0 && errno != EEXIST) return Refused("mkdir " + main, errno);
  for (const pid_t pid : ours) {
    const int error = WriteText(main + "/cgroup.procs", std::to_string(pid));
    if (error != 0 && error != ESRCH) return Refused("cannot move processes to " + main, error);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobCgroups>> JobCgroups::Take(const CgroupOptions& options) {
  std::string parent = options.parent;
  PARLEY_ASSIGN_OR_RETURN(const std::string own, parent.empty() ? OwnGroup() : std::string());
  if (parent.empty()) {
    if (!IsDelegated(own)) {
      return FailedPrecondition("the group {} was not delegated to this program", own);
    }
    parent = own;
  }
  const std::string controllers = ReadAll(parent + "/cgroup.controllers");
  if (access((parent + "/cgroup.procs").c_str(), W_OK) != 0) {
    return Refused("cannot write to the group " + parent, errno);
  }
  if (options.needs_memory && !HasWord(controllers, "memory")) {
    return FailedPrecondition("the group {} has no controller of memory", parent);
  }
  const std::string main = own.empty() ? "" : parent + kMain;
  if (!main.empty()) PARLEY_RETURN_IF_ERROR(MoveResidents(parent, main, options.residents));
  RemoveOrphans(parent);
  std::unique_ptr<JobCgroups> groups(new JobCgroups(parent));
  for (const char* controller : {"memory", "pids"}) {
    if (!HasWord(controllers, controller)) continue;
    const std::string path = parent + "/cgroup.subtree_control";
    const bool on = HasWord(ReadAll(path), controller);
    const int error = on ? 0 : WriteText(path, std::string("+") + controller);
    (std::string_view(controller) == "memory" ? groups->memory_ : groups->pids_) = error == 0;
    if (error != 0 && options.needs_memory && std::string_view(controller) == "memory") {
      return Refused("cannot hand the controller of memory down from " + parent, error);
    }
  }
  // Does it work? Better seen now than by the first job.
  PARLEY_ASSIGN_OR_RETURN(const UniqueFd entry, groups->Make(0));
  const pid_t probe = fork();
  if (probe == 0) _exit(write(entry.get(), "0", 1) == 1 ? 0 : errno);
  groups->Born(std::max(probe, 0));
  int status = 0;
  if (probe < 0 || waitpid(probe, &status, 0) != probe) return Refused("fork", errno);
  groups->Gone(probe);
  if (status == 0) return groups;
  return Refused("a process cannot be put into a group below " + parent, WEXITSTATUS(status));
}

JobCgroups::~JobCgroups() {
  for (const auto& [pid, folder] : folders_) left_.push_back(folder);
  for (const std::string& folder : left_) rmdir(folder.c_str());
}

absl::StatusOr<UniqueFd> JobCgroups::Make(int64_t memory_bytes) {
  const std::string folder = fmt::format("{}{}{}-{}", parent_, kJob, getpid(), ++made_);
  if (mkdir(folder.c_str(), 0755) != 0) return Refused("mkdir " + folder, errno);
  int error = 0;
  if (memory_ && memory_bytes > 0) {
    error = WriteText(folder + "/memory.max", std::to_string(memory_bytes));
    WriteText(folder + "/memory.swap.max", "0");  // not there without swap accounting
    WriteText(folder + "/memory.oom.group", "1");
  }
  if (pids_ && error == 0) error = WriteText(folder + "/pids.max", kMaxThreads);
  UniqueFd entry(open((folder + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  if (error == 0 && !entry.valid()) error = errno;
  if (error != 0) {
    rmdir(folder.c_str());
    return Refused("the group " + folder, error);
  }
  unborn_ = folder;
  return entry;
}

void JobCgroups::Born(pid_t pid) {
  if (pid > 0) {
    folders_[pid] = std::exchange(unborn_, {});
  } else {
    Remove(std::exchange(unborn_, {}));
  }
}

bool JobCgroups::Gone(pid_t pid) {
  const auto it = folders_.find(pid);
  if (it == folders_.end()) return false;
  const std::string folder = std::move(it->second);
  folders_.erase(it);
  bool killed = false;
  for (const std::string& line : Split(ReadAll(folder + "/memory.events"), '\n')) {
    if (line.rfind("oom_kill ", 0) == 0) killed = std::atoll(line.c_str() + 9) > 0;
  }
  for (const std::string& left : std::exchange(left_, {})) Remove(left);
  Remove(folder);
  return killed;
}

void JobCgroups::Remove(const std::string& folder) {
  WriteText(folder + "/cgroup.kill", "1");
  // Somebody may still be dying in there.
  if (rmdir(folder.c_str()) != 0 && errno == EBUSY) left_.push_back(folder);
}

}  // namespace parley::supervise
