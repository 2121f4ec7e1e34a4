// Ended jobs that their rooms have still to hear of.
#include "base/status.h"
#include "job_redis/redis_job_store.h"

namespace parley::job {
namespace {

constexpr char kSome[] = "256";
constexpr absl::Duration kKept = absl::Minutes(10);

}  // namespace

absl::StatusOr<std::vector<Fence>> RedisJobStore::Fences(std::string_view pool) {
  const keys::PoolKeys keys{pool};
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          Command({"HSCAN", keys.fences(), "0", "COUNT", kSome}));
  if (reply.elements.size() != 2) return Internal("HSCAN answered in another form");
  const std::vector<redis::Reply>& parts = reply.elements[1].elements;
  std::vector<Fence> fences;
  std::vector<std::vector<std::string>> commands;
  for (size_t i = 0; i + 1 < parts.size(); i += 2) {
    Fence fence;
    fence.job_id = parts[i].text;
    fence.lowest_token = ToToken(parts[i + 1].text);
    const size_t space = parts[i + 1].text.find(' ');
    const uint64_t since =
        space == std::string::npos ? 0 : ToToken(parts[i + 1].text.substr(space + 1));
    fence.since = absl::FromUnixMillis(static_cast<int64_t>(since));
    commands.push_back({"HMGET", keys.job(fence.job_id), "project", "room"});
    fences.push_back(std::move(fence));
  }
  PARLEY_ASSIGN_OR_RETURN(const std::vector<redis::Reply> jobs, Pipeline(commands));
  std::vector<Fence> kept;
  for (size_t i = 0; i < fences.size(); ++i) {
    fences[i].project = jobs[i].elements.at(0).text;
    fences[i].room = jobs[i].elements.at(1).text;
    if (fences[i].room.empty() || absl::Now() - fences[i].since > kKept) {
      PARLEY_RETURN_IF_ERROR(ClearFence(pool, fences[i]));
    } else {
      kept.push_back(std::move(fences[i]));
    }
  }
  return kept;
}

absl::Status RedisJobStore::ClearFence(std::string_view pool, const Fence& fence) {
  return Command({"HDEL", keys::PoolKeys(pool).fences(), fence.job_id}).status();
}

}  // namespace parley::job
