#include <algorithm>
#include <charconv>

#include "base/status.h"
#include "job_redis/redis_job_store.h"

namespace parley::job {
namespace {

constexpr int kMaxScanned = 5'000;  // ids looked at for one page, so that a filter costs no more

// "<ms>:<id>" of the last one on the page before; newest first, then by id, falling.
struct Cursor {
  int64_t ms = INT64_MAX;
  std::string id;
};

absl::StatusOr<Cursor> ParseCursor(std::string_view text) {
  Cursor cursor;
  if (text.empty()) return cursor;
  const size_t colon = text.find(':');
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cursor.ms);
  if (error != std::errc() || colon == text.npos || end != text.data() + colon) {
    return InvalidArgument("page_token is not one of ours: \"{}\"", text.substr(0, 64));
  }
  cursor.id = text.substr(colon + 1);
  return cursor;
}

bool IsAfter(const std::pair<int64_t, std::string>& entry, const Cursor& cursor) {
  return entry.first < cursor.ms || (entry.first == cursor.ms && entry.second < cursor.id);
}

bool Fits(const Dispatch& dispatch, const JobStore::ListQuery& query) {
  return (query.project.empty() || dispatch.project == query.project) &&
         (query.agent_name.empty() || dispatch.agent_name == query.agent_name);
}

struct Entry {
  int64_t ms;
  std::string id;
  std::string pool;
};

}  // namespace

absl::StatusOr<std::vector<std::pair<int64_t, std::string>>> RedisJobStore::ListIds(
    const std::string& key, int64_t before_ms, int offset, int limit) {
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      Command({"ZREVRANGEBYSCORE", key, before_ms == INT64_MAX ? "+inf" : std::to_string(before_ms),
               "-inf", "WITHSCORES", "LIMIT", std::to_string(offset), std::to_string(limit)}));
  std::vector<std::pair<int64_t, std::string>> ids;
  for (size_t i = 0; i + 1 < reply.elements.size(); i += 2) {
    ids.emplace_back(static_cast<int64_t>(std::strtod(reply.elements[i + 1].text.c_str(), nullptr)),
                     reply.elements[i].text);
  }
  return ids;
}

absl::StatusOr<JobStore::Page<Dispatch>> RedisJobStore::ListDispatches(const ListQuery& query) {
  if (query.project.empty()) return InvalidArgument("a list is of one project");
  PARLEY_ASSIGN_OR_RETURN(const Cursor start, ParseCursor(query.after));
  PARLEY_ASSIGN_OR_RETURN(const std::vector<std::string> pools, Pools());
  // The next entries of every pool and index, merged; a page takes the newest of them.
  std::vector<Entry> entries;
  bool all_seen = true;
  const int wanted =
      query.agent_name.empty() ? std::min(kMaxScanned, query.limit + 1) : kMaxScanned;
  for (const std::string& pool : pools) {
    const keys::PoolKeys keys(pool);
    std::vector<std::string> indexes;
    if (query.room.empty()) {
      indexes = {keys.live(query.project), keys.past(query.project)};
    } else {
      indexes = {keys.room_live(query.project, query.room),
                 keys.room_past(query.project, query.room)};
    }
    if (!query.include_ended) indexes.pop_back();
    for (const std::string& index : indexes) {
      int taken = 0;
      for (int offset = 0; taken < wanted; offset += wanted) {
        PARLEY_ASSIGN_OR_RETURN(const auto ids, ListIds(index, start.ms, offset, wanted));
        for (const auto& entry : ids) {
          if (!start.id.empty() && !IsAfter(entry, start)) continue;
          entries.push_back({entry.first, entry.second, pool});
          ++taken;
        }
        if (static_cast<int>(ids.size()) < wanted) break;
      }
      if (taken >= wanted) all_seen = false;
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(b.ms, b.id) < std::tie(a.ms, a.id);
  });
  Page<Dispatch> page;
  size_t at = 0;
  for (; at < entries.size() && at < kMaxScanned; ++at) {
    if (static_cast<int>(page.items.size()) == query.limit) break;
    absl::StatusOr<Dispatch> dispatch = ReadDispatch(entries[at].pool, entries[at].id);
    if (absl::IsNotFound(dispatch.status())) continue;  // ended an hour ago
    if (!dispatch.ok()) return dispatch.status();
    if (Fits(*dispatch, query)) page.items.push_back(*std::move(dispatch));
  }
  if (at > 0 && (at < entries.size() || !all_seen)) {
    page.next = fmt::format("{}:{}", entries[at - 1].ms, entries[at - 1].id);
  }
  return page;
}

absl::StatusOr<JobStore::Page<SessionRecord>> RedisJobStore::ListSessions(std::string_view project,
                                                                          int limit,
                                                                          std::string_view after) {
  PARLEY_ASSIGN_OR_RETURN(const Cursor start, ParseCursor(after));
  Page<SessionRecord> page;
  for (int offset = 0;; offset += limit + 1) {
    PARLEY_ASSIGN_OR_RETURN(const auto ids,
                            ListIds(keys::Sessions(project), start.ms, offset, limit + 1));
    for (const auto& entry : ids) {
      if (!start.id.empty() && !IsAfter(entry, start)) continue;
      if (static_cast<int>(page.items.size()) == limit) return page;
      absl::StatusOr<SessionRecord> record = GetSession(project, entry.second);
      if (absl::IsNotFound(record.status())) continue;
      if (!record.ok()) return record.status();
      page.items.push_back(*std::move(record));
      page.next = fmt::format("{}:{}", entry.first, entry.second);
    }
    if (static_cast<int>(ids.size()) <= limit) break;
  }
  page.next.clear();
  return page;
}

}  // namespace parley::job
