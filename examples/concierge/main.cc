// The concierge of a small hotel: an agent written in C++. It books tables, knows what it has
// booked after a restart too, and needs no key and no network: embedded speech, rules in place of a
// model.
#include <agent/run_agent.h>
#include <agent/tool.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace {

using parley::agent::AgentSession;
using parley::agent::JobContext;
using parley::agent::MakeTool;
using parley::agent::SessionConfig;
using parley::agent::UserTurn;

// What the tool gets, and what the model is told about it.
struct Booking {
  std::string meal;
  std::optional<int64_t> people;
  static void Describe(parley::agent::ToolFields<Booking>& fields) {
    fields.Add("meal", &Booking::meal, "Which meal").OneOf({"lunch", "dinner"});
    fields.Add("people", &Booking::people, "For how many").Range(1, 12);
  }
};
struct Nothing {
  static void Describe(parley::agent::ToolFields<Nothing>&) {}
};

// What a caller may say: a small grammar is understood almost always.
constexpr char kGrammar[] = R"(#JSGF V1.0;
grammar concierge;
public <utterance> = [please] <wish> | <courtesy>;
<wish> = book a table for <meal> | what have i booked | when is breakfast;
<meal> = lunch | dinner;
<courtesy> = hello | one moment | thank you | good bye;)";

// Stands in for a language model: the first rule that fits answers, or calls a tool.
constexpr char kRules[] = R"([
  {"when": "table for {meal:lunch|dinner}", "call": "book_table", "say": "{result}"},
  {"when": "what have i booked", "call": "bookings", "say": "{result}"},
  {"when": "breakfast", "say": "Breakfast is from seven to ten."},
  {"when": "thank you|good bye", "say": "You are welcome."},
  {"otherwise": "I can book a table for lunch or dinner."}])";

class Concierge : public parley::agent::Agent {
 public:
  explicit Concierge(JobContext& job)
      : Agent("You are the concierge of a small hotel. Answer in one short sentence."),
        job_(job),
        booked_(job.restored_state()) {  // another process may have had this call before
    AddTool(MakeTool<Booking>("book_table", "Books a table in the hotel's restaurant",
                              [this](const Booking& wish) { return Book(wish); }));
    AddTool(MakeTool<Nothing>("bookings", "What this guest has booked", [this](const Nothing&) {
      std::lock_guard lock(mutex_);
      return booked_.empty() ? "Nothing yet." : "You have booked " + booked_ + ".";
    }));
  }

  void OnEnter(AgentSession& session) override {
    session.Say("Good day. Shall I book a table for you?");
  }
  // A guest who wants to think is not talked to.
  void OnUserTurnCompleted(AgentSession&, UserTurn& turn) override {
    if (turn.text == "one moment") turn.answer = false;
  }
  void OnExit(AgentSession&) override {
    job_.log().Info("the guest has gone", {{"booked", booked_}});
  }

 private:
  absl::StatusOr<std::string> Book(const Booking& wish) {
    std::lock_guard lock(mutex_);
    booked_ = "a table for " + wish.meal;
    if (wish.people) booked_ += " for " + std::to_string(*wish.people);
    job_.log().Info("booked", {{"meal", wish.meal}});
    // Outlives this process: restored_state() of the one that takes over.
    if (absl::Status saved = job_.SaveState(booked_); !saved.ok()) return saved;
    return "I have booked " + booked_ + ".";
  }

  JobContext& job_;
  std::mutex mutex_;  // tools run on threads of their own
  std::string booked_;
};

// Runs once for each call, in a process of its own, and may block.
absl::Status Entrypoint(JobContext& job) {
  SessionConfig config;
  config.agent = std::make_shared<Concierge>(job);
  config.stt = {{.engine = "pocketsphinx", .grammar = kGrammar}};
  config.llm = {{.engine = "rules", .rules_json = kRules}};
  config.tts = {{.engine = "flite", .voice = "slt"}};
  absl::StatusOr<AgentSession*> session = job.StartSession(std::move(config));
  if (!session.ok()) return session.status();
  return (*session)->Wait();
}

}  // namespace

int main(int argc, char** argv) {
  parley::agent::AgentOptions options;
  options.agent_name = "concierge";
  options.entrypoint = Entrypoint;
  return parley::agent::RunAgent(argc, argv, std::move(options));
}
