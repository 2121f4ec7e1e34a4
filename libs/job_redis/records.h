#pragma once
// Records as hashes, and back. Fields are read by name, so that later versions may add some.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "job/records.h"
#include "redis/redis.h"

namespace parley::job {

using Fields = std::map<std::string, std::string, std::less<>>;

// The answer of HGETALL; empty when there is no such key.
Fields ToFields(const redis::Reply& reply);
std::string_view Get(const Fields& fields, std::string_view name);
int64_t GetInt(const Fields& fields, std::string_view name);
absl::Time GetTime(const Fields& fields, std::string_view name, absl::Time missing);  // ms
uint64_t ToToken(std::string_view text);  // 0 when it is none
absl::Time ToTime(std::string_view ms);   // InfinitePast when it is none
std::string TimeText(absl::Time time);    // ms since 1970; "0" for InfinitePast

// What `create` and `register_worker` take for one dispatch: count of pairs, then field, value ….
void AppendRecord(const DispatchSpec& spec, const Fields& extra, std::vector<std::string>& out);

Dispatch ToDispatch(const Fields& d, std::string_view id, std::string_view payload,
                    std::string_view pool);
Job ToJob(const Fields& j, std::string_view id, std::string_view pool);
Worker ToWorker(const Fields& w, std::string_view id, std::string_view pool);
// `&d=…&r=…&l.KEY=VALUE&`: a selector fits when each of its parts is in it.
std::string WorkerFacts(const Registration& registration);
// Maps of texts in one text: `k=v&k=v`, escaped.
std::string MapText(const std::map<std::string, std::string>& map);
std::map<std::string, std::string> ToMap(std::string_view text);

}  // namespace parley::job
