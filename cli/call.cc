// parley call: be the caller, by a synthesised voice, a WAV file or in writing.
#include <fmt/format.h>

#include <memory>
#include <vector>

#include "audio/pcm.h"
#include "audio/wav.h"
#include "base/status.h"
#include "base/strings.h"
#include "command.h"
#include "conversation.h"
#include "speech.h"

namespace parley::cli {
namespace {

constexpr int kFileRateHz = 48'000;

struct CallWish {
  ConversationOptions conversation;
  std::vector<std::string> say;
  std::vector<std::string> wav;
  std::vector<std::string> text;
  std::string voice = "rms";
  std::string out;
  std::vector<std::string> expect;
  std::vector<std::string> expect_heard;
  bool expect_tool = false;
  std::string wait = "15s";
  std::string to;
};

// Something to play: what it is called, and its samples.
struct Speech {
  std::string name;
  std::vector<int16_t> samples;
  int rate_hz = 0;
};

// All of it before the call begins, so that latencies are the agent's alone.
absl::StatusOr<std::vector<Speech>> Prepare(Api& api, const CallWish& wish) {
  std::vector<Speech> speeches;
  for (const std::string& text : wish.say) {
    PARLEY_ASSIGN_OR_RETURN(const std::string bytes, Speak(api, text, "flite", wish.voice));
    PARLEY_ASSIGN_OR_RETURN(const audio::Wav wav, audio::ParseWav(bytes));
    speeches.push_back({text, TrimEnd(audio::MixDown(wav.samples, wav.channels)), wav.rate_hz});
  }
  for (const std::string& path : wish.wav) {
    PARLEY_ASSIGN_OR_RETURN(std::vector<int16_t> samples, audio::ReadSpeech(path, kFileRateHz));
    speeches.push_back({path, TrimEnd(std::move(samples)), kFileRateHz});
  }
  return speeches;
}

bool Contains(std::string_view text, std::string_view part) {
  return ToLower(text).find(ToLower(part)) != std::string::npos;
}

// What the session's record says of tools. The record is complete once the job has ended.
absl::StatusOr<int> ToolCalls(Api& api, const std::string& session_id) {
  for (int attempt = 0; attempt < 60; ++attempt) {
    PARLEY_ASSIGN_OR_RETURN(const Json session, api.Get("/api/sessions/" + session_id));
    if (const int calls = session.value("usage", Json::object()).value("toolCalls", 0); calls > 0)
      return calls;
    if (Cell(session, "state") == "ENDED") return 0;
    absl::SleepFor(absl::Milliseconds(100));
  }
  return 0;
}

absl::Status Judge(Api& api, const CallWish& wish, const Conversation& call,
                   const std::vector<Turn>& turns) {
  if (!call.agent_spoke()) return Internal("the agent never spoke");
  std::string answers = call.greeting();
  std::string heard;
  for (const Turn& turn : turns) {
    if (turn.latency_ms < 0) return Internal("the agent did not answer \"{}\"", turn.said);
    answers += "\n" + turn.answer;
    heard += "\n" + turn.heard;
  }
  for (const std::string& part : wish.expect) {
    if (!Contains(answers, part)) return Internal("the agent never said \"{}\"", part);
  }
  for (const std::string& part : wish.expect_heard) {
    if (!Contains(heard, part)) return Internal("the agent never heard \"{}\"", part);
  }
  if (!wish.expect_tool) return absl::OkStatus();
  PARLEY_ASSIGN_OR_RETURN(const int calls, ToolCalls(api, call.session_id()));
  return calls > 0 ? absl::OkStatus() : Internal("the agent called no tool");
}

void PrintResult(const Command& command, const CallWish& wish, const Conversation& call,
                 const std::vector<Turn>& turns) {
  if (command.output.json) {
    Json list = Json::array();
    for (const Turn& turn : turns)
      list.push_back({{"said", turn.said},
                      {"heard", turn.heard},
                      {"answer", turn.answer},
                      {"latencyMs", turn.latency_ms}});
    PrintJson({{"sessionId", call.session_id()},
               {"room", call.room()},
               {"greeting", call.greeting()},
               {"turns", std::move(list)},
               {"recording", wish.out}});
  } else if (!command.output.quiet && !wish.out.empty()) {
    fmt::print("         both sides are in {} (caller left, agent right)\n", wish.out);
  }
}

absl::Status Call(const Command& command, CallWish wish) {
  if (!wish.to.empty())
    return Error(absl::StatusCode::kUnimplemented,
                 "--to {}: telephony is not built yet; call an agent with --agent", wish.to);
  if (wish.conversation.agent.empty()) return UsageError("name whom to call: --agent ID");
  const auto wait = ParseDuration(wish.wait);
  if (!wait || *wait <= absl::ZeroDuration())
    return UsageError("--wait must be a duration such as 15s, not " + wish.wait);
  wish.conversation.agent_timeout = *wait;
  PARLEY_RETURN_IF_ERROR(command.UseTls());
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(std::vector<Speech> speeches, Prepare(api, wish));
  wish.conversation.print = !command.output.json && !command.output.quiet;
  wish.conversation.microphone = !speeches.empty() || wish.text.empty();
  wish.conversation.record = !wish.out.empty();
  PARLEY_ASSIGN_OR_RETURN(auto call, Conversation::Open(api, wish.conversation));
  std::vector<Turn> turns;
  turns.reserve(speeches.size() + wish.text.size());
  for (Speech& speech : speeches)
    turns.push_back(call->Say(speech.name, std::move(speech.samples), speech.rate_hz));
  for (const std::string& text : wish.text) turns.push_back(call->Write(text));
  call->HangUp();
  if (!wish.out.empty()) PARLEY_RETURN_IF_ERROR(call->SaveRecording(wish.out));
  PrintResult(command, wish, *call, turns);
  return Judge(api, wish, *call, turns);
}

}  // namespace

void AddCall(CLI::App& root, Command& command) {
  auto wish = std::make_shared<CallWish>();
  CLI::App* call = AddCommand(root, command, "call", "Call an agent and print both sides",
                              [&command, wish] { return Call(command, *wish); });
  ConversationOptions& options = wish->conversation;
  call->add_option("--agent", options.agent, "Id of the agent");
  call->add_option("--say", wish->say, "Say this, by a synthesised voice; repeat for more turns")
      ->allow_extra_args(false);
  call->add_option("--wav", wish->wav, "Play this PCM WAV file as the caller; repeatable")
      ->allow_extra_args(false);
  call->add_option("--text", wish->text, "Write this as chat; repeatable")->allow_extra_args(false);
  call->add_option("--voice", wish->voice, "Voice of --say: rms, slt, awb, kal16")
      ->capture_default_str();
  call->add_option("--room", options.room, "Room to meet in; default: a new one");
  call->add_option("--identity", options.identity, "Who calls; default: invented");
  call->add_option("--metadata", options.metadata, "Text for the agent's job");
  call->add_option("--out", wish->out, "Write both sides as stereo WAV: caller left, agent right");
  call->add_option("--expect", wish->expect, "Fail unless the agent says this; repeatable")
      ->allow_extra_args(false);
  call->add_option("--expect-heard", wish->expect_heard,
                   "Fail unless the agent understood this; repeatable")
      ->allow_extra_args(false);
  call->add_flag("--expect-tool", wish->expect_tool, "Fail unless the agent called a tool");
  call->add_option("--wait", wish->wait, "How long the agent may take to come")
      ->capture_default_str();
  call->add_option("--to", wish->to, "Reserved for telephone numbers (tel:…)");
}

}  // namespace parley::cli
