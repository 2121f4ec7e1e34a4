// parley agents versions|deploy|canary|rollback: which version serves new calls.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>

#include "base/status.h"
#include "command.h"

namespace parley::cli {
namespace {

using Shares = std::map<uint64_t, int, std::greater<>>;  // version → percent, newest first

std::string PathOf(const std::string& id, std::string_view what) {
  return fmt::format("/api/agents/{}/{}", http::UrlEncode(id), what);
}

// "version 3: 90 %, version 2: 10 %, sticky".
std::string Describe(const Json& deployment) {
  std::string text;
  for (const Json& share : deployment.at("versions")) {
    if (!text.empty()) text += ", ";
    text += fmt::format("version {}: {} %", Cell(share, "version"), Cell(share, "percent"));
  }
  if (text.empty()) return "whatever is newest";
  return text + (deployment.value("sticky", false) ? ", sticky" : "");
}

absl::Status Print(const Command& command, const std::string& id, const Json& deployment) {
  if (!deployment.is_object() || !deployment.contains("versions")) {
    return Internal("the server did not answer with a deployment");
  }
  if (command.output.json) {
    PrintJson(deployment);
  } else if (!command.output.quiet) {
    fmt::print("{} is served by {}\n", id, Describe(deployment));
  }
  return absl::OkStatus();
}

// All versions, newest first.
absl::StatusOr<std::vector<uint64_t>> VersionsOf(Api& api, const std::string& id) {
  PARLEY_ASSIGN_OR_RETURN(const Json list, api.List(PathOf(id, "versions"), "versions"));
  std::vector<uint64_t> versions;
  for (const Json& one : list) versions.push_back(one.value("version", uint64_t{0}));
  if (versions.empty()) return NotFound("agent \"{}\" has no versions", id);
  return versions;
}

absl::StatusOr<Shares> SharesOf(Api& api, const std::string& id) {
  PARLEY_ASSIGN_OR_RETURN(const Json deployment, api.Get(PathOf(id, "deployment")));
  Shares shares;
  for (const Json& share : deployment.value("versions", Json::array())) {
    shares[share.value("version", uint64_t{0})] = share.value("percent", 0);
  }
  return shares;
}

absl::StatusOr<Json> Put(Api& api, const std::string& id, const Shares& shares, bool sticky) {
  Json versions = Json::array();
  for (const auto& [version, percent] : shares) {
    versions.push_back({{"version", version}, {"percent", percent}});
  }
  return api.Put(PathOf(id, "deployment"), {{"versions", versions}, {"sticky", sticky}});
}

absl::Status Versions(const Command& command, const std::string& id) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json list, api.List(PathOf(id, "versions"), "versions"));
  PARLEY_ASSIGN_OR_RETURN(const Shares shares, SharesOf(api, id));
  Json out = Json::array();
  Table table({"VERSION", "SERVES", "NAME", "AGE"});
  for (Json version : list) {
    const auto share = shares.find(version.value("version", uint64_t{0}));
    const bool newest = shares.empty() && out.empty();  // they come newest first
    const int percent = newest ? 100 : share == shares.end() ? 0 : share->second;
    version["percent"] = percent;
    if (command.output.quiet) fmt::print("{}\n", Cell(version, "version"));
    table.Row({Cell(version, "version"), fmt::format("{} %", percent), Cell(version, "name"),
               Age(version, "createTime")});
    out.push_back(std::move(version));
  }
  if (command.output.json) {
    PrintJson(out);
  } else if (!command.output.quiet) {
    table.Print();
  }
  return absl::OkStatus();
}

struct Wanted {
  std::string id;
  uint64_t version = 0;  // 0 = the newest
  int percent = 10;
  bool sticky = false;
  bool follow = false;
};

absl::Status Deploy(const Command& command, const Wanted& wanted) {
  if (wanted.follow && wanted.version != 0) return UsageError("--follow goes without --version");
  Api api = command.MakeApi();
  Shares shares;
  if (!wanted.follow) {
    PARLEY_ASSIGN_OR_RETURN(const std::vector<uint64_t> versions, VersionsOf(api, wanted.id));
    shares[wanted.version == 0 ? versions.front() : wanted.version] = 100;
  }
  PARLEY_ASSIGN_OR_RETURN(const Json now, Put(api, wanted.id, shares, false));
  return Print(command, wanted.id, now);
}

// The canary takes its share; those that serve besides it keep theirs in proportion.
absl::Status Canary(const Command& command, const Wanted& wanted) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const std::vector<uint64_t> versions, VersionsOf(api, wanted.id));
  const uint64_t canary = wanted.version == 0 ? versions.front() : wanted.version;
  PARLEY_ASSIGN_OR_RETURN(Shares shares, SharesOf(api, wanted.id));
  shares.erase(canary);
  if (shares.empty()) {
    const auto base = std::ranges::find_if(versions, [&](uint64_t v) { return v != canary; });
    if (base == versions.end()) {
      return FailedPrecondition("version {} is the only one of {}", canary, wanted.id);
    }
    shares[*base] = 100;
  }
  int whole = 0;
  for (const auto& [version, percent] : shares) whole += percent;
  int left = 100 - wanted.percent;
  for (auto& [version, percent] : shares) percent = percent * left / std::max(whole, 1);
  for (const auto& [version, percent] : shares) left -= percent;
  shares.begin()->second += left;  // what rounding left over
  shares[canary] = wanted.percent;
  std::erase_if(shares, [](const auto& share) { return share.second == 0; });
  PARLEY_ASSIGN_OR_RETURN(const Json now, Put(api, wanted.id, shares, wanted.sticky));
  return Print(command, wanted.id, now);
}

absl::Status RollBack(const Command& command, const std::string& id) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json now, api.Post(PathOf(id, "rollback"), Json::object()));
  return Print(command, id, now);
}

}  // namespace

void AddDeployments(CLI::App& agents, Command& command) {
  auto wanted = std::make_shared<Wanted>();
  AddCommand(agents, command, "versions", "Versions of an agent and what each serves",
             [&command, wanted] { return Versions(command, wanted->id); })
      ->add_option("ID", wanted->id, "Id of the agent")
      ->required();
  CLI::App* deploy =
      AddCommand(agents, command, "deploy",
                 "One version serves all new calls, until told otherwise; live calls keep theirs",
                 [&command, wanted] { return Deploy(command, *wanted); });
  deploy->add_option("ID", wanted->id, "Id of the agent")->required();
  deploy->add_option("--version", wanted->version, "Which; default: the newest");
  deploy->add_flag("--follow", wanted->follow, "From now on whatever is newest");
  CLI::App* canary =
      AddCommand(agents, command, "canary", "One version serves a share of new calls",
                 [&command, wanted] { return Canary(command, *wanted); });
  canary->add_option("ID", wanted->id, "Id of the agent")->required();
  canary->add_option("--version", wanted->version, "Which; default: the newest");
  canary->add_option("--percent", wanted->percent, "Its share; 0 ends it")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  canary->add_flag("--sticky", wanted->sticky,
                   "A room gets the same version as long as the shares stay");
  AddCommand(agents, command, "rollback", "What served before serves again",
             [&command, wanted] { return RollBack(command, wanted->id); })
      ->add_option("ID", wanted->id, "Id of the agent")
      ->required();
}

}  // namespace parley::cli
