#include "speech_redis/ledger.h"

#include <charconv>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "base/strings.h"
#include "speech_redis/keys.h"
#include "speech_redis/scripts.h"

namespace parley::speech_redis {
namespace {

constexpr int64_t kLeaveAloneUs = 1'000'000;  // a Redis that failed
constexpr std::string_view kSttSeconds = "stt_seconds";
constexpr std::string_view kCharacters = "tts_characters";
constexpr std::string_view kTokens = "tokens";

int64_t Of(const Spend& spend, std::string_view unit) {
  const auto it = spend.find(unit);
  return it == spend.end() ? 0 : it->second;
}

int64_t Used(const Spend& spend, std::string_view limit) {
  if (limit == kSttSeconds) return Of(spend, units::kSttMs) / 1000;
  if (limit == kCharacters) return Of(spend, units::kTtsCharacters);
  return Of(spend, units::kInputTokens) + Of(spend, units::kOutputTokens);
}

Spend ToSpend(const redis::Reply& flat) {
  Spend spend;
  for (size_t i = 0; i + 1 < flat.elements.size(); i += 2) {
    const std::string& amount = flat.elements[i + 1].text;
    int64_t value = 0;
    std::from_chars(amount.data(), amount.data() + amount.size(), value);
    spend[flat.elements[i].text] = value;
  }
  return spend;
}

}  // namespace

absl::StatusOr<SpendCap> SpendCap::Parse(std::string_view text) {
  const auto bad = [text](std::string_view why) {
    return InvalidArgument(
        "the cap \"{}\" {}; it looks like hotel/tokens/day=200000 (stt_seconds, tts_characters or "
        "tokens; day or session; * for each project)",
        text, why);
  };
  const size_t equals = text.rfind('=');
  if (equals == std::string_view::npos) return bad("has no number");
  const std::vector<std::string> parts = Split(text.substr(0, equals), '/');
  if (parts.size() != 3 || parts[0].empty()) return bad("does not name project, limit and period");
  SpendCap cap;
  cap.project = parts[0];
  cap.limit = parts[1];
  if (cap.limit != kSttSeconds && cap.limit != kCharacters && cap.limit != kTokens)
    return bad("limits what is not counted");
  if (parts[2] != "day" && parts[2] != "session") return bad("has another period");
  cap.of_session = parts[2] == "session";
  const std::string_view number = text.substr(equals + 1);
  const auto read = std::from_chars(number.data(), number.data() + number.size(), cap.most);
  if (read.ec != std::errc() || read.ptr != number.data() + number.size() || cap.most <= 0)
    return bad("has no number above 0");
  return cap;
}

absl::StatusOr<std::vector<SpendCap>> SpendCap::ParseAll(const std::vector<std::string>& texts) {
  std::vector<SpendCap> caps;
  for (const std::string& text : texts) {
    PARLEY_ASSIGN_OR_RETURN(SpendCap cap, Parse(text));
    caps.push_back(std::move(cap));
  }
  return caps;
}

Ledger::Ledger(redis::Pool& pool, std::string replica, std::vector<SpendCap> caps, log::Logger log,
               absl::Duration flush)
    : pool_(pool),
      replica_(std::move(replica)),
      caps_(std::move(caps)),
      log_(std::move(log)),
      flush_(flush),
      thread_([this] { Run(); }) {}

Ledger::~Ledger() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void Ledger::Charge(const std::string& project, const std::string& session, std::string_view unit,
                    std::string_view engine, bool remote, int64_t amount) {
  if (amount <= 0) return;
  MutexLock lock(&mutex_);
  Sessions& fresh = accounts_[project].fresh;
  const bool full = fresh.size() >= kMaxSessions && !fresh.contains(session);
  Spend& spend = fresh[full ? std::string() : session];
  if (remote) spend[std::string(unit)] += amount;
  spend[fmt::format("{}:{}", unit, engine)] += amount;
}

absl::StatusOr<Ledger::Book> Ledger::Sync(const std::string& project, const std::string& session) {
  MutexLock saying(&saying_);
  std::vector<std::string> arguments = {replica_};
  {
    MutexLock lock(&mutex_);
    Account& account = accounts_[project];
    if (account.said.empty() && !account.fresh.empty()) {
      account.said = std::exchange(account.fresh, {});
      ++account.number;
    }
    arguments.push_back(std::to_string(account.number));
    arguments.push_back(std::to_string(account.said.size()));
    for (const auto& [id, spend] : account.said) {
      arguments.push_back(id);
      arguments.push_back(std::to_string(spend.size()));
      for (const auto& [unit, amount] : spend) {
        arguments.push_back(unit);
        arguments.push_back(std::to_string(amount));
      }
    }
  }
  arguments.push_back(session);
  const absl::StatusOr<redis::Reply> reply =
      pool_.Call(scripts::charge, {SpendKey(project)}, arguments);
  MutexLock lock(&mutex_);
  if (!reply.ok()) {
    failed_us_ = Clock::Real().MonotonicMicros();
    return reply.status();
  }
  failed_us_ = 0;
  Account& account = accounts_[project];
  account.said.clear();
  if (reply->elements.size() != 3) return Internal("charge answered in an unknown form");
  Book book{ToSpend(reply->elements[1]), ToSpend(reply->elements[2])};
  // What came while the call was under way.
  for (const auto& [id, spend] : account.fresh) {
    for (const auto& [unit, amount] : spend) {
      book.day[unit] += amount;
      if (id == session) book.session[unit] += amount;
    }
  }
  return book;
}

absl::StatusOr<Ledger::Book> Ledger::Read(const std::string& project, const std::string& session) {
  // What was said and not answered stands before what is new: twice at most.
  PARLEY_ASSIGN_OR_RETURN(Book book, Sync(project, session));
  return book;
}

std::vector<Ledger::CapUse> Ledger::CapsOf(std::string_view project, const Book& book) const {
  std::vector<CapUse> uses;
  for (const SpendCap& cap : caps_) {
    if (cap.project != "*" && cap.project != project) continue;
    uses.push_back({cap, Used(cap.of_session ? book.session : book.day, cap.limit)});
  }
  return uses;
}

absl::Status Ledger::Check(const std::string& project, const std::string& session) {
  if (CapsOf(project, {}).empty()) return absl::OkStatus();
  {
    MutexLock lock(&mutex_);
    if (failed_us_ != 0 && Clock::Real().MonotonicMicros() - failed_us_ < kLeaveAloneUs)
      return absl::OkStatus();
  }
  const absl::StatusOr<Book> book = Sync(project, session);
  if (!book.ok()) return absl::OkStatus();
  for (const CapUse& use : CapsOf(project, *book)) {
    if (use.used < use.cap.most) continue;
    return WithReason(ResourceExhausted("project {} has used {} {} of {} in this {}", project,
                                        use.used, use.cap.limit, use.cap.most, use.cap.period()),
                      "SPEND_CAP",
                      {{"cap", fmt::format("{}/{}", use.cap.limit, use.cap.period())}});
  }
  return absl::OkStatus();
}

void Ledger::Run() {
  bool last = false;
  while (!last) {
    std::vector<std::string> projects;
    {
      MutexLock lock(&mutex_);
      if (!stop_) changed_.WaitFor(&mutex_, flush_);
      last = stop_;
      for (const auto& [name, account] : accounts_)
        if (!account.fresh.empty() || !account.said.empty()) projects.push_back(name);
    }
    for (const std::string& project : projects) {
      const absl::StatusOr<Book> book = Sync(project, "");
      if (book.ok()) continue;
      if (!absl::IsUnavailable(book.status()))
        log_.Error("what was used cannot be written",
                   {{"project", project}, {"error", Message(book.status())}});
      break;
    }
  }
}

}  // namespace parley::speech_redis
