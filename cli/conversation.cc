#include "conversation.h"

#include <absl/time/clock.h>
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <set>

#include "base/status.h"

namespace parley::cli {
namespace {

constexpr auto kGreetingStarts = absl::Milliseconds(1500);  // an agent that greets does so by then
constexpr auto kAnswerEnds = absl::Milliseconds(900);       // silence after which a turn is over
constexpr auto kLongestAnswer = absl::Seconds(60);
constexpr auto kTranscriptLag = absl::Seconds(2);  // of a transcript behind its audio
constexpr auto kPrintEvery = absl::Milliseconds(40);
constexpr int kSilence = 200;  // of 32767: below it a sample is silence

// Why did nobody come? The state of the dispatch's last job, in words.
std::string JobInWords(Api& api, const std::string& dispatch_id) {
  const absl::StatusOr<Json> dispatch = api.Get("/api/dispatches/" + http::UrlEncode(dispatch_id));
  if (!dispatch.ok() || !dispatch->contains("jobs") || (*dispatch)["jobs"].empty())
    return "its dispatch has no job";
  const Json& job = (*dispatch)["jobs"].back();
  std::string words = "its job is " + Cell(job, "state");
  if (const std::string reason = Cell(job, "reason"); reason != "-") words += "/" + reason;
  if (const std::string error = Cell(job, "error"); error != "-") words += ": " + error;
  if (Cell(job, "state") == "PENDING")
    words += " (no free agent server; see `parley workers list`)";
  return words;
}

}  // namespace

std::vector<int16_t> TrimEnd(std::vector<int16_t> samples) {
  while (!samples.empty() && std::abs(samples.back()) < kSilence) samples.pop_back();
  return samples;
}

absl::StatusOr<std::unique_ptr<Conversation>> Conversation::Open(Api& api,
                                                                 ConversationOptions options) {
  Json body = {{"agent", options.agent}};
  if (!options.room.empty()) body["room"] = options.room;
  if (!options.metadata.empty()) body["metadata"] = options.metadata;
  if (!options.identity.empty()) body["participant"] = options.identity;
  PARLEY_ASSIGN_OR_RETURN(const Json session, api.Post("/api/sessions", body));

  std::unique_ptr<Conversation> call(new Conversation(std::move(options)));
  call->session_id_ = Cell(session, "sessionId");
  call->room_ = Cell(session, "roomName");
  caller::CallerOptions caller;
  caller.media_url = session.value("mediaUrl", "");
  caller.token = session.value("participantToken", "");
  caller.microphone = call->options_.microphone;
  caller.record = call->options_.record;
  PARLEY_ASSIGN_OR_RETURN(call->caller_, caller::Caller::Connect(std::move(caller)));
  call->Line(0, "room", fmt::format("{} (session {})", call->room_, call->session_id_));
  if (call->options_.print)
    call->printer_ = std::jthread([c = call.get()](const std::stop_token& s) { c->PrintLive(s); });
  PARLEY_RETURN_IF_ERROR(call->WaitForGreeting(api, Cell(session, "dispatchId")));
  return call;
}

Conversation::~Conversation() { HangUp(); }

absl::Status Conversation::WaitForGreeting(Api& api, const std::string& dispatch_id) {
  const absl::StatusOr<std::string> agent = caller_->WaitForAgent(options_.agent_timeout);
  if (!agent.ok()) {
    const std::string words = JobInWords(api, dispatch_id);
    (void)api.Delete("/api/dispatches/" + http::UrlEncode(dispatch_id));  // nobody waits any more
    return Error(agent.status().code(), "agent \"{}\" did not come within {}: {}", options_.agent,
                 absl::FormatDuration(options_.agent_timeout), words);
  }
  Line(caller_->NowMicros(), "agent", fmt::format("{} is here", *agent));
  const absl::StatusOr<int64_t> sound = caller_->WaitForAgentAudio(0, kGreetingStarts);
  if (!sound.ok()) return absl::OkStatus();  // it waits for us
  agent_spoke_ = true;
  (void)caller_->WaitForAgentSilence(*sound, kAnswerEnds, kLongestAnswer);
  (void)caller_->WaitForTranscript(true, 0, kTranscriptLag);
  greeting_ = Spoken(true, 0);
  return absl::OkStatus();
}

Turn Conversation::Say(const std::string& name, std::vector<int16_t> samples, int rate_hz) {
  Turn turn;
  turn.said = name;
  const int64_t from_us = caller_->NowMicros();
  Line(from_us, "you", fmt::format("\"{}\"", name));
  const auto length =
      absl::Seconds(static_cast<double>(samples.size()) / static_cast<double>(rate_hz));
  if (absl::Status status = caller_->Play(samples, rate_hz); !status.ok()) {
    PrintError(status);
    return turn;
  }
  const absl::StatusOr<int64_t> end_us = caller_->WaitPlayed(length + absl::Seconds(10));
  if (!end_us.ok()) {
    PrintError(end_us.status());
    return turn;
  }
  WaitForAnswer(turn, from_us, *end_us);
  turn.heard = Spoken(false, from_us);
  return turn;
}

Turn Conversation::Write(const std::string& text) {
  Turn turn;
  turn.said = text;
  const int64_t from_us = caller_->NowMicros();
  Line(from_us, "you", fmt::format("({})", text));
  if (absl::Status status = caller_->SendText(text); !status.ok()) {
    PrintError(status);
    return turn;
  }
  WaitForAnswer(turn, from_us, from_us);
  return turn;
}

void Conversation::WaitForAnswer(Turn& turn, int64_t from_us, int64_t end_us) {
  // Counted from the first sound on: an agent that answers before we have stopped (a barge-in the
  // other way round) has answered too.
  const absl::StatusOr<int64_t> sound = caller_->WaitForAgentAudio(end_us, options_.answer_timeout);
  if (!sound.ok()) {
    Line(caller_->NowMicros(), "agent", "(no answer)");
    return;
  }
  agent_spoke_ = true;
  turn.latency_ms = (*sound - end_us) / 1000;
  Line(*sound, "agent", fmt::format("answers after {} ms", turn.latency_ms));
  (void)caller_->WaitForAgentSilence(*sound, kAnswerEnds, kLongestAnswer);
  (void)caller_->WaitForTranscript(true, from_us, kTranscriptLag);
  turn.answer = Spoken(true, from_us);
}

std::string Conversation::Spoken(bool by_agent, int64_t after_us) const {
  std::string text;
  for (const caller::Transcript& part : caller_->transcripts()) {
    if (part.agent != by_agent || !part.final || part.last_at_us < after_us || part.text.empty())
      continue;
    if (!text.empty()) text += ' ';
    text += part.text;
  }
  return text;
}

void Conversation::PrintLive(const std::stop_token& stop) {
  std::set<std::string> printed;
  bool last = false;
  while (!last) {
    last = stop.stop_requested();  // one more look after the end
    for (const caller::Transcript& part : caller_->transcripts()) {
      if (!part.final || part.text.empty() || !printed.insert(part.segment_id).second) continue;
      Line(part.last_at_us, part.agent ? "agent" : "heard", part.text);
    }
    absl::SleepFor(kPrintEvery);
  }
}

void Conversation::Line(int64_t at_us, std::string_view who, std::string_view text) const {
  if (!options_.print) return;
  fmt::print("{:7.2f}  {:<6} {}\n", static_cast<double>(at_us) / 1e6, who, text);
  std::fflush(stdout);
}

void Conversation::HangUp() {
  if (caller_) caller_->HangUp();
  if (printer_.joinable()) {
    printer_.request_stop();
    printer_.join();
  }
}

}  // namespace parley::cli
