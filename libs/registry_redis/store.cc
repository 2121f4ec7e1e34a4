#include "registry_redis/store.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/status.h"
#include "base/strings.h"
#include "registry_redis/keys.h"
#include "registry_redis/scripts.h"

namespace parley::registry_redis {
namespace {

using registry::AgentRecord;
using registry::Change;

constexpr int kScanSize = 100;    // ids looked at in one step of a filtered list
constexpr int kMaxChanges = 100;  // answered at once

std::vector<std::string> KeysOf(std::string_view project, std::string_view id) {
  return {HeadsKey(project),        IndexKey(project),      NamesKey(project),
          CountersKey(project),     ChangesKey(project),    SequenceKey(project),
          VersionsKey(project, id), PinnedKey(project, id), DeploymentsKey(project),
          DeployedKey(project, id)};
}

template <typename Number>
std::optional<Number> ToNumber(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view TakeWord(std::string_view& text) {
  const size_t space = std::min(text.find(' '), text.size());
  const std::string_view word = text.substr(0, space);
  text.remove_prefix(std::min(space + 1, text.size()));
  return word;
}

// What this program itself has written; anything else means that the store was tampered with.
absl::StatusOr<AgentRecord> ParseRecord(std::string_view project, uint64_t version,
                                        std::string_view text) {
  const std::string_view form = TakeWord(text);
  if (form != "1") {
    return Internal("a record of the agent registry has form {}, written by a newer version", form);
  }
  const std::optional<int64_t> create_ms = ToNumber<int64_t>(TakeWord(text));
  AgentRecord record;
  record.content_hash = std::string(TakeWord(text));
  record.definition_json = std::string(text);
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!create_ms || !json.is_object()) return Internal("a record of the agent registry is damaged");
  record.project = std::string(project);
  record.version = version;
  record.create_time = absl::FromUnixMillis(*create_ms);
  record.id = json.value("id", "");
  record.name = json.value("name", "");
  record.agent_name = json.value("agent_name", "");
  record.pool = json.value("pool", "");
  record.labels = json.value("labels", std::map<std::string, std::string>());
  return record;
}

// "<version> <record>".
absl::StatusOr<AgentRecord> ParseHead(std::string_view project, std::string_view head) {
  const std::optional<uint64_t> version = ToNumber<uint64_t>(TakeWord(head));
  if (!version) return Internal("a record of the agent registry is damaged");
  return ParseRecord(project, *version, head);
}

absl::Status NoAgent(std::string_view id) {
  return WithReason(NotFound("agent \"{}\" does not exist", id), "AGENT_UNKNOWN");
}

// "1 <revision> <time, ms> <shares>".
absl::StatusOr<registry::Deployment> ParseDeployment(std::string_view text) {
  if (TakeWord(text) != "1") {
    return Internal("a deployment of the agent registry was written by a newer version");
  }
  const std::optional<uint64_t> revision = ToNumber<uint64_t>(TakeWord(text));
  const std::optional<int64_t> time_ms = ToNumber<int64_t>(TakeWord(text));
  if (!revision || !time_ms) return Internal("a deployment of the agent registry is damaged");
  PARLEY_ASSIGN_OR_RETURN(registry::Deployment deployment, registry::ParseShares(text));
  deployment.revision = *revision;
  deployment.time = absl::FromUnixMillis(*time_ms);
  return deployment;
}

absl::Status NameTaken(std::string_view agent_name, std::string_view owner) {
  const std::string whose = owner.starts_with("d ")
                                ? fmt::format("the definition \"{}\"", owner.substr(2))
                                : "a program that serves it";
  return WithReason(AlreadyExists("agent_name \"{}\" belongs to {}; choose another name or free it",
                                  agent_name, whose),
                    "NAME_TAKEN", {{"agent_name", std::string(agent_name)}});
}

bool Fits(const AgentRecord& record, const registry::ListQuery& query) {
  if (!query.pool.empty() && record.pool != query.pool) return false;
  return std::all_of(query.labels.begin(), query.labels.end(), [&](const auto& label) {
    const auto it = record.labels.find(label.first);
    return it != record.labels.end() && it->second == label.second;
  });
}

struct Entry {
  uint64_t sequence = 0;
  std::string id;
  uint64_t version = 0;
};

// [["7-0", ["id", "x", "version", "3"]], …]
std::vector<Entry> ParseEntries(const redis::Reply& reply) {
  std::vector<Entry> entries;
  for (const redis::Reply& item : reply.elements) {
    if (item.elements.size() != 2) continue;
    const std::string& position = item.elements[0].text;
    Entry entry;
    entry.sequence = ToNumber<uint64_t>(position.substr(0, position.find('-'))).value_or(0);
    const std::vector<redis::Reply>& fields = item.elements[1].elements;
    for (size_t i = 0; i + 1 < fields.size(); i += 2) {
      if (fields[i].text == "id") entry.id = fields[i + 1].text;
      if (fields[i].text == "version") {
        entry.version = ToNumber<uint64_t>(fields[i + 1].text).value_or(0);
      }
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace

absl::StatusOr<registry::RegisterOutcome> RedisAgentStore::Register(const AgentRecord& record) {
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      pool_.Eval(kRegister, KeysOf(record.project, record.id),
                 {record.id, record.agent_name, record.content_hash, record.definition_json,
                  std::to_string(kVersionsKept), std::to_string(kChangesKept),
                  std::to_string(kPinnedSeconds)}));
  if (reply.elements.size() != 2) return Internal("register.lua answered something else");
  const int64_t outcome = reply.elements[0].integer;
  if (outcome < 0) return NameTaken(record.agent_name, reply.elements[1].text);
  registry::RegisterOutcome result;
  PARLEY_ASSIGN_OR_RETURN(result.record, ParseHead(record.project, reply.elements[1].text));
  result.created = outcome == 1;
  return result;
}

absl::StatusOr<AgentRecord> RedisAgentStore::Get(std::string_view project, std::string_view id,
                                                 uint64_t version) {
  if (version == 0) {
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply head,
                            pool_.Command({"HGET", HeadsKey(project), std::string(id)}));
    if (head.nil()) return NoAgent(id);
    return ParseHead(project, head.text);
  }
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply record,
      pool_.Command({"HGET", VersionsKey(project, id), std::to_string(version)}));
  if (record.nil()) {
    return WithReason(NotFound("agent \"{}\" has no version {}", id, version), "AGENT_UNKNOWN");
  }
  return ParseRecord(project, version, record.text);
}

absl::StatusOr<AgentRecord> RedisAgentStore::GetPinned(std::string_view project,
                                                       std::string_view id, uint64_t version) {
  absl::StatusOr<AgentRecord> found = Get(project, id, version);
  if (!absl::IsNotFound(found.status())) return found;
  const std::string key = PinnedKey(project, id);
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply record,
                          pool_.Command({"HGET", key, std::to_string(version)}));
  if (record.nil()) return found;
  PARLEY_RETURN_IF_ERROR(pool_.Command({"EXPIRE", key, std::to_string(kPinnedSeconds)}).status());
  return ParseRecord(project, version, record.text);
}

absl::StatusOr<AgentRecord> RedisAgentStore::GetByAgentName(std::string_view project,
                                                            std::string_view agent_name) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply owner,
                          pool_.Command({"HGET", NamesKey(project), std::string(agent_name)}));
  if (owner.nil() || !owner.text.starts_with("d ")) {
    return WithReason(NotFound("no definition has the agent_name \"{}\"", agent_name),
                      "AGENT_UNKNOWN");
  }
  return Get(project, std::string_view(owner.text).substr(2), 0);
}

absl::StatusOr<registry::ListPage> RedisAgentStore::List(std::string_view project,
                                                         const registry::ListQuery& query) {
  if (query.page_token.find_first_of(" [(") != std::string::npos) {
    return InvalidArgument("page_token is not one of a list before");
  }
  const size_t page_size = static_cast<size_t>(std::clamp(query.page_size, 1, 500));
  registry::ListPage page;
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply sequence,
                          pool_.Command({"GET", SequenceKey(project)}));
  page.sequence = ToNumber<uint64_t>(sequence.text).value_or(0);
  std::string after = query.page_token;
  while (true) {
    PARLEY_ASSIGN_OR_RETURN(
        const redis::Reply ids,
        pool_.Command({"ZRANGEBYLEX", IndexKey(project), after.empty() ? "-" : "(" + after, "+",
                       "LIMIT", "0", std::to_string(kScanSize)}));
    if (ids.elements.empty()) return page;
    std::vector<std::string> command = {"HMGET", HeadsKey(project)};
    for (const redis::Reply& id : ids.elements) command.push_back(id.text);
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply heads, pool_.Command(command));
    for (size_t i = 0; i < heads.elements.size(); ++i) {
      if (page.agents.size() == page_size) {
        page.next_page_token = after;
        return page;
      }
      after = ids.elements[i].text;
      if (heads.elements[i].nil()) continue;  // deleted in between
      PARLEY_ASSIGN_OR_RETURN(AgentRecord record, ParseHead(project, heads.elements[i].text));
      if (Fits(record, query)) page.agents.push_back(std::move(record));
    }
  }
}

absl::Status RedisAgentStore::Delete(std::string_view project, std::string_view id) {
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      pool_.Eval(kDelete, KeysOf(project, id),
                 {std::string(id), std::to_string(kChangesKept), std::to_string(kPinnedSeconds)}));
  return reply.integer == 1 ? absl::OkStatus() : NoAgent(id);
}

absl::StatusOr<std::vector<AgentRecord>> RedisAgentStore::Versions(std::string_view project,
                                                                   std::string_view id) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          pool_.Command({"HGETALL", VersionsKey(project, id)}));
  std::vector<AgentRecord> versions;
  for (size_t i = 0; i + 1 < reply.elements.size(); i += 2) {
    const uint64_t version = ToNumber<uint64_t>(reply.elements[i].text).value_or(0);
    PARLEY_ASSIGN_OR_RETURN(AgentRecord record,
                            ParseRecord(project, version, reply.elements[i + 1].text));
    versions.push_back(std::move(record));
  }
  if (versions.empty()) return NoAgent(id);
  std::sort(versions.begin(), versions.end(),
            [](const AgentRecord& a, const AgentRecord& b) { return a.version > b.version; });
  return versions;
}

absl::StatusOr<registry::Deployment> RedisAgentStore::GetDeployment(std::string_view project,
                                                                    std::string_view id) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply record,
                          pool_.Command({"HGET", DeploymentsKey(project), std::string(id)}));
  if (record.nil()) return registry::Deployment();
  return ParseDeployment(record.text);
}

absl::StatusOr<registry::Deployment> RedisAgentStore::SetDeployment(
    std::string_view project, std::string_view id, const registry::Deployment& deployment) {
  std::vector<std::string> arguments = {std::string(id), registry::SharesText(deployment),
                                        std::to_string(kDeploymentsKept)};
  for (const registry::VersionShare& share : deployment.versions) {
    arguments.push_back(std::to_string(share.version));
  }
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          pool_.Eval(kDeploy, KeysOf(project, id), arguments));
  if (reply.elements.size() == 1) return NoAgent(id);
  if (reply.elements.size() != 2) return Internal("deploy.lua answered something else");
  if (reply.elements[0].integer == 1) return ParseDeployment(reply.elements[1].text);
  return WithReason(NotFound("agent \"{}\" has no version {}", id, reply.elements[1].text),
                    "VERSION_UNKNOWN", {{"version", reply.elements[1].text}});
}

absl::StatusOr<registry::Deployment> RedisAgentStore::RollBack(std::string_view project,
                                                               std::string_view id) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          pool_.Eval(kRollBack, KeysOf(project, id), {std::string(id)}));
  if (reply.elements.size() == 2) return ParseDeployment(reply.elements[1].text);
  if (reply.elements.size() != 1) return Internal("roll_back.lua answered something else");
  if (reply.elements[0].integer == 0) return NoAgent(id);
  return WithReason(FailedPrecondition("nothing of agent \"{}\" served before", id),
                    "NOTHING_BEFORE");
}

absl::StatusOr<std::vector<Change>> RedisAgentStore::ReadChanges(std::string_view project,
                                                                 uint64_t after_sequence,
                                                                 absl::Duration wait) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply newest, pool_.Command({"GET", SequenceKey(project)}));
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply oldest,
                          pool_.Command({"XRANGE", ChangesKey(project), "-", "+", "COUNT", "1"}));
  const std::vector<Entry> first = ParseEntries(oldest);
  const bool ahead = after_sequence > ToNumber<uint64_t>(newest.text).value_or(0);
  if (ahead || (!first.empty() && first[0].sequence > after_sequence + 1)) {
    return WithReason(OutOfRange("changes after {} are no longer kept; list the agents and go on "
                                 "from the list's sequence",
                                 after_sequence),
                      "POSITION_LOST");
  }
  PARLEY_ASSIGN_OR_RETURN(
      redis::Reply found,
      pool_.Command({"XRANGE", ChangesKey(project), std::to_string(after_sequence + 1) + "-0", "+",
                     "COUNT", std::to_string(kMaxChanges)}));
  if (found.elements.empty() && wait > absl::ZeroDuration()) {
    const int64_t wait_ms = std::max<int64_t>(1, absl::ToInt64Milliseconds(wait));
    PARLEY_ASSIGN_OR_RETURN(
        redis::Reply read,
        pool_.BlockingCommand(
            {"XREAD", "COUNT", std::to_string(kMaxChanges), "BLOCK", std::to_string(wait_ms),
             "STREAMS", ChangesKey(project), std::to_string(after_sequence) + "-0"},
            wait));
    if (!read.nil() && !read.elements.empty() && read.elements[0].elements.size() == 2) {
      found = std::move(read.elements[0].elements[1]);
    }
  }
  std::vector<Change> changes;
  for (const Entry& entry : ParseEntries(found)) {
    Change change;
    change.sequence = entry.sequence;
    change.id = entry.id;
    change.deleted = entry.version == 0;
    if (!change.deleted) {
      absl::StatusOr<AgentRecord> record = Get(project, entry.id, entry.version);
      if (record.status().code() == absl::StatusCode::kNotFound) {
        change.deleted = true;  // deleted since; what was is of no use any more
      } else if (!record.ok()) {
        return record.status();
      } else {
        change.record = *std::move(record);
      }
    }
    changes.push_back(std::move(change));
  }
  return changes;
}

absl::Status RedisAgentStore::ClaimForProgram(std::string_view project, std::string_view agent_name,
                                              absl::Duration ttl) {
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      pool_.Eval(kClaimForProgram, KeysOf(project, ""),
                 {std::string(agent_name), std::to_string(absl::ToInt64Milliseconds(ttl))}));
  return reply.text.empty() ? absl::OkStatus() : NameTaken(agent_name, reply.text);
}

}  // namespace parley::registry_redis
