#include "checker/history.h"

#include <absl/time/time.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/status.h"

namespace parley::checker {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxLine = 1 << 20;

// The fields of one line. The first one that is missing or of a wrong form is remembered.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  std::string Text(const char* name, bool required = false) {
    const auto it = object_.find(name);
    if (it == object_.end() || it->is_null()) {
      if (required) Fail(name);
      return {};
    }
    if (!it->is_string()) return Fail(name), std::string();
    return it->get<std::string>();
  }
  // 64-bit numbers may be quoted, as JSON of protobuf has them.
  uint64_t Number(const char* name, bool required = false) {
    const auto it = object_.find(name);
    if (it == object_.end()) {
      if (required) Fail(name);
      return 0;
    }
    if (it->is_number_unsigned()) return it->get<uint64_t>();
    const std::optional<uint64_t> number =
        it->is_string() ? ToNumber(it->get<std::string>()) : std::nullopt;
    if (!number) Fail(name);
    return number.value_or(0);
  }
  int64_t Micros(const char* name) {
    const uint64_t value = Number(name, true);
    if (value > uint64_t{1} << 60) Fail(name);
    return static_cast<int64_t>(value);
  }
  int Small(const char* name, bool required = false) {
    const uint64_t value = Number(name, required);
    if (value > 10'000'000) Fail(name);
    return static_cast<int>(value);
  }
  const std::string& wrong() const { return wrong_; }

  static std::optional<uint64_t> ToNumber(std::string_view text) {
    if (text.empty() || text.size() > 19) return std::nullopt;
    uint64_t value = 0;
    for (const char c : text) {
      if (c < '0' || c > '9') return std::nullopt;
      value = value * 10 + static_cast<uint64_t>(c - '0');
    }
    return value;
  }

 private:
  void Fail(const char* name) {
    if (wrong_.empty()) wrong_ = name;
  }
  const Json& object_;
  std::string wrong_;
};

template <typename What>
bool Lookup(const std::map<std::string, What, std::less<>>& names, std::string_view text,
            What& what) {
  const auto it = names.find(text);
  if (it == names.end()) return false;
  what = it->second;
  return true;
}

bool Read(Fields& fields, ClientRecord& record) {
  using What = ClientRecord::What;
  static const std::map<std::string, What, std::less<>> names = {{"ask", What::kAsk},
                                                                 {"ack", What::kAck},
                                                                 {"give_up", What::kGiveUp},
                                                                 {"terminate", What::kTerminate},
                                                                 {"final", What::kFinal}};
  if (!Lookup(names, fields.Text("what", true), record.what)) return false;
  const bool keyed =
      record.what == What::kAsk || record.what == What::kAck || record.what == What::kGiveUp;
  record.time_us = fields.Micros("time_us");
  record.key = fields.Text("key", keyed);
  record.dispatch = fields.Text("dispatch", !keyed || record.what == What::kAck);
  record.job = fields.Text("job");
  record.state = fields.Text("state", record.what == What::kFinal);
  record.reason = fields.Text("reason");
  record.wait_ms = fields.Small("wait_ms");
  return true;
}

bool Read(Fields& fields, WorkerRecord& record) {
  using What = WorkerRecord::What;
  static const std::map<std::string, What, std::less<>> names = {
      {"begin", What::kBegin},    {"session", What::kSession}, {"renew", What::kRenew},
      {"start", What::kStart},    {"enter", What::kEnter},     {"end", What::kEnd},
      {"release", What::kRelease}};
  if (!Lookup(names, fields.Text("what", true), record.what)) return false;
  const bool of_job =
      record.what != What::kBegin && record.what != What::kSession && record.what != What::kRenew;
  record.time_us = fields.Micros("time_us");
  record.worker = fields.Text("worker", true);
  record.job = fields.Text("job", of_job);
  record.token = fields.Number("token", of_job);
  record.pid = fields.Small("pid");
  record.slots = fields.Small("slots", record.what == What::kBegin);
  record.reason = fields.Text("reason", record.what == What::kEnd);
  return true;
}

bool Read(Fields& fields, RoomRecord& record) {
  using What = RoomRecord::What;
  static const std::map<std::string, What, std::less<>> names = {{"begin", What::kBegin},
                                                                 {"admit", What::kAdmit},
                                                                 {"refuse", What::kRefuse},
                                                                 {"remove", What::kRemove},
                                                                 {"killed", What::kKilled}};
  if (!Lookup(names, fields.Text("what", true), record.what)) return false;
  const bool of_job = record.what != What::kBegin && record.what != What::kKilled;
  record.time_us = fields.Micros("time_us");
  record.room_sid = fields.Text("room_sid", of_job);
  record.job = fields.Text("job", of_job);
  record.worker = fields.Text("worker");
  record.token = fields.Number("token", of_job);
  record.highest = fields.Number("highest");
  if (const std::string server = fields.Text("server", record.what == What::kKilled);
      !server.empty()) {
    record.server = server;
  }
  return true;
}

// "<epoch>-<n>", or "POOL=<epoch>-<n>,…" of a reader of several pools.
bool ReadPosition(std::string_view text, EventRecord& record) {
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find(',', start), text.size());
    std::string_view part = text.substr(start, end - start);
    start = end + 1;
    if (const size_t equals = part.find('='); equals != part.npos) {
      if (part.substr(0, equals) != record.pool) continue;
      part = part.substr(equals + 1);
    }
    const size_t dash = part.find('-');
    if (dash == part.npos) return false;
    const auto epoch = Fields::ToNumber(part.substr(0, dash));
    const auto number = Fields::ToNumber(part.substr(dash + 1));
    if (!epoch || !number) return false;
    record.epoch = *epoch;
    record.number = *number;
    return true;
  }
  return false;
}

bool Read(Fields& fields, EventRecord& record) {
  record.pool = fields.Text("pool", true);
  record.type = fields.Text("type", true);
  record.project = fields.Text("project");
  record.dispatch = fields.Text("dispatchId");
  record.job = fields.Text("jobId");
  record.worker = fields.Text("workerId");
  record.agent = fields.Text("agentName");
  record.state = fields.Text("state");
  record.reason = fields.Text("reason");
  record.token = fields.Number("fencingToken");
  record.attempt = fields.Small("attempt");
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, fields.Text("time", true), &time, &error)) return false;
  record.time_us = absl::ToUnixMicros(time);
  return ReadPosition(fields.Text("position", true), record);
}

template <typename Record>
absl::Status Append(const Json& object, std::string_view file, int line,
                    std::vector<Record>& records) {
  Fields fields(object);
  Record record;
  record.where = fmt::format("{}:{}", file, line);
  if constexpr (std::is_same_v<Record, RoomRecord>) record.server = file;
  const bool known = Read(fields, record);
  if (!fields.wrong().empty()) {
    return InvalidArgument("{}:{}: field \"{}\" is missing or of a wrong form", file, line,
                           fields.wrong());
  }
  if (!known) return InvalidArgument("{}:{}: not a line of such a log", file, line);
  records.push_back(std::move(record));
  return absl::OkStatus();
}

}  // namespace

absl::Status AddLine(Source source, std::string_view file, int line, std::string_view text,
                     History& history) {
  if (text.empty()) return absl::OkStatus();
  if (text.size() > kMaxLine) return InvalidArgument("{}:{}: over 1 MiB", file, line);
  const Json object = Json::parse(text, nullptr, false);
  if (!object.is_object()) return InvalidArgument("{}:{}: not a JSON object", file, line);
  switch (source) {
    case Source::kClients:
      return Append(object, file, line, history.clients);
    case Source::kWorkers:
      return Append(object, file, line, history.workers);
    case Source::kRooms:
      return Append(object, file, line, history.rooms);
    case Source::kEvents:
      return Append(object, file, line, history.events);
  }
  return absl::OkStatus();
}

absl::Status AddFile(Source source, const std::string& path, History& history) {
  std::ifstream file(path);
  if (!file) return NotFound("{} cannot be read", path);
  const std::string name = std::filesystem::path(path).filename();
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    PARLEY_RETURN_IF_ERROR(AddLine(source, name, ++number, line, history));
  }
  return absl::OkStatus();
}

}  // namespace parley::checker
