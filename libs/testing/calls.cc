#include "testing/calls.h"

#include <absl/time/clock.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include "auth/token.h"
#include "base/status.h"

namespace parley::testing {
namespace {

using nlohmann::json;

constexpr absl::Duration kLong = absl::Seconds(30);  // only a call that fails waits so long

std::string AdminToken() {
  auth::Claims claims;
  claims.identity = "test";
  claims.agent_admin = true;
  claims.video.room_create = true;
  claims.video.room_list = true;
  return auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1));
}

void ReplaceAll(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

}  // namespace

absl::StatusOr<json> Api::Call(const std::string& method, const std::string& path,
                               const json& body) {
  http::Call call;
  call.method = method;
  call.url = base_ + path;
  call.headers = {{"authorization", "Bearer " + AdminToken()},
                  {"content-type", "application/json"}};
  if (!body.is_null()) call.body = body.is_string() ? body.get<std::string>() : body.dump();
  call.reach = http::Reach::kLoopbackToo;
  call.max_response_bytes = 64 << 20;
  PARLEY_ASSIGN_OR_RETURN(const http::Reply reply, client_.Fetch(call));
  if (reply.status / 100 != 2)
    return Unavailable("{} {}: {} {}", method, path, reply.status, reply.body);
  const json answer = json::parse(reply.body, nullptr, false);
  return answer.is_discarded() ? json(reply.body) : answer;
}

absl::Status Api::RegisterFile(const std::string& path) {
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (text.empty()) return NotFound("{} is not there", path);
  ReplaceAll(text, "http://127.0.0.1:8080", base_);
  return Register(text);
}

absl::Status Api::Register(const std::string& definition) {
  return Call("POST", "/api/agents/register", definition).status();
}

absl::StatusOr<std::unique_ptr<caller::Caller>> Api::Call(const std::string& agent) {
  PARLEY_ASSIGN_OR_RETURN(const json session, Call("POST", "/api/sessions", {{"agent", agent}}));
  caller::CallerOptions options;
  options.token = session["participantToken"].get<std::string>();
  options.media_url = session["mediaUrl"].get<std::string>();
  PARLEY_ASSIGN_OR_RETURN(auto caller, caller::Caller::Connect(options));
  PARLEY_RETURN_IF_ERROR(caller->WaitForAgent(kLong).status());
  return caller;
}

absl::StatusOr<std::vector<int16_t>> Api::Speech(const std::string& text) {
  if (const auto it = speech_.find(text); it != speech_.end()) return it->second;
  PARLEY_ASSIGN_OR_RETURN(
      const json answer,
      Call("POST", "/v1/audio/speech",
           {{"input", text}, {"model", "flite"}, {"voice", "rms"}, {"response_format", "pcm"}}));
  const auto bytes = answer.get<std::string>();
  std::vector<int16_t> samples(bytes.size() / 2);
  std::memcpy(samples.data(), bytes.data(), samples.size() * 2);
  return speech_[text] = std::move(samples);
}

absl::StatusOr<json> Api::Job(const std::string& dispatch_id) {
  PARLEY_ASSIGN_OR_RETURN(const json dispatch, Call("GET", "/api/dispatches/" + dispatch_id));
  if (dispatch["jobs"].empty()) return NotFound("dispatch {} has no job", dispatch_id);
  return dispatch["jobs"].back();
}

absl::StatusOr<std::unique_ptr<FrontDeskCall>> FrontDeskCall::Place(
    Api& api, const std::string& restart_policy) {
  std::unique_ptr<FrontDeskCall> call(new FrontDeskCall(api));
  PARLEY_ASSIGN_OR_RETURN(const json session,
                          api.Call("POST", "/api/sessions",
                                   {{"agent", "front-desk"}, {"restartPolicy", restart_policy}}));
  call->room_ = session["roomName"].get<std::string>();
  call->dispatch_id_ = session["dispatchId"].get<std::string>();
  caller::CallerOptions options;
  options.token = session["participantToken"].get<std::string>();
  options.media_url = session["mediaUrl"].get<std::string>();
  PARLEY_ASSIGN_OR_RETURN(call->caller_, caller::Caller::Connect(options));
  PARLEY_RETURN_IF_ERROR(call->caller_->WaitForAgent(kLong).status());
  PARLEY_RETURN_IF_ERROR(call->caller_->WaitForAgentAudio(0, kLong).status());
  PARLEY_RETURN_IF_ERROR(
      call->caller_->WaitForAgentSilence(0, absl::Milliseconds(500), kLong).status());
  return call;
}

absl::Status FrontDeskCall::Ask(const std::string& room_type, const std::string& price,
                                absl::Duration timeout) {
  PARLEY_ASSIGN_OR_RETURN(const std::vector<int16_t> speech,
                          api_.Speech("how much is a " + room_type + " room"));
  const int64_t asked_us = caller_->NowMicros();
  PARLEY_RETURN_IF_ERROR(caller_->Play(speech, kSpeechRateHz));
  PARLEY_ASSIGN_OR_RETURN(const int64_t played_us, caller_->WaitPlayed(timeout));
  PARLEY_ASSIGN_OR_RETURN(const int64_t audio_us, caller_->WaitForAgentAudio(played_us, timeout));
  PARLEY_ASSIGN_OR_RETURN(const caller::Transcript answer,
                          caller_->WaitForTranscript(/*of_agent=*/true, asked_us, timeout));
  PARLEY_RETURN_IF_ERROR(
      caller_->WaitForAgentSilence(audio_us, absl::Milliseconds(500), timeout).status());
  if (answer.text.find(price) == std::string::npos) {
    return Internal("asked for a {} room, the agent said \"{}\"", room_type, answer.text);
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> FrontDeskCall::WaitForNewAgent(int64_t after_us, absl::Duration timeout) {
  PARLEY_ASSIGN_OR_RETURN(const caller::CallEvent joined,
                          caller_->WaitFor(
                              "another agent in the room",
                              [](const caller::CallEvent& event) {
                                return event.type == caller::CallEvent::Type::kParticipantJoined &&
                                       event.agent;
                              },
                              timeout, after_us));
  return joined.at_us;
}

absl::Status Api::Migrate(const std::string& dispatch_id, absl::Duration timeout) {
  PARLEY_ASSIGN_OR_RETURN(const json before, Job(dispatch_id));
  PARLEY_RETURN_IF_ERROR(
      Call("POST", "/api/jobs/" + before["id"].get<std::string>() + "/migrate", json::object())
          .status());
  const absl::Time until = absl::Now() + timeout;
  while (absl::Now() < until) {
    PARLEY_ASSIGN_OR_RETURN(const json job, Job(dispatch_id));
    if (job["nextWorkerId"].get_ref<const std::string&>().empty() &&
        job["workerId"] != before["workerId"])
      return absl::OkStatus();
    absl::SleepFor(absl::Milliseconds(20));
  }
  return DeadlineExceeded("the job of {} did not move", dispatch_id);
}

absl::StatusOr<std::unique_ptr<MemoryCall>> MemoryCall::Place(Api& api, const std::string& word) {
  std::unique_ptr<MemoryCall> call(new MemoryCall(word));
  PARLEY_ASSIGN_OR_RETURN(const json session,
                          api.Call("POST", "/api/sessions", {{"agent", "memory"}}));
  call->dispatch_id_ = session["dispatchId"].get<std::string>();
  caller::CallerOptions options;
  options.token = session["participantToken"].get<std::string>();
  options.media_url = session["mediaUrl"].get<std::string>();
  options.record = false;
  options.opus_complexity = 0;
  PARLEY_ASSIGN_OR_RETURN(call->caller_, caller::Caller::Connect(options));
  PARLEY_RETURN_IF_ERROR(call->caller_->WaitForAgent(kLong).status());
  return call;
}

absl::Status MemoryCall::Say(const std::string& text, const std::string& expected) {
  const int64_t at_us = caller_->NowMicros();
  PARLEY_RETURN_IF_ERROR(caller_->SendText(text));
  PARLEY_ASSIGN_OR_RETURN(const caller::Transcript answer,
                          caller_->WaitForTranscript(/*of_agent=*/true, at_us, kLong));
  if (answer.text.find(expected) != std::string::npos) return absl::OkStatus();
  return Internal("to \"{}\" the agent said \"{}\"", text, answer.text);
}

absl::Status MemoryCall::Tell() { return Say("my word is " + word_, "Noted"); }

absl::Status MemoryCall::Ask() {
  PARLEY_RETURN_IF_ERROR(Say("what did I say before", "my word is " + word_));
  return Tell();
}

int MemoryCall::NewAgents(int64_t after_us) const {
  int count = 0;
  for (const caller::CallEvent& event : caller_->events()) {
    const bool joined = event.type == caller::CallEvent::Type::kParticipantJoined;
    if (joined && event.agent && event.at_us > after_us) ++count;
  }
  return count;
}

std::vector<double> MemoryCall::GapsMs() const {
  std::vector<double> gaps;
  int64_t left_us = -1;
  for (const caller::CallEvent& event : caller_->events()) {
    using Type = caller::CallEvent::Type;
    if (!event.identity.starts_with("agent-")) continue;
    if (event.type == Type::kParticipantLeft) left_us = event.at_us;
    if (event.type != Type::kAgentAudible || left_us < 0) continue;
    gaps.push_back(static_cast<double>(event.at_us - left_us) / 1000);
    left_us = -1;
  }
  return gaps;
}

std::vector<double> HandOverPausesMs(const std::string& log) {
  std::vector<double> pauses;
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    const json entry = json::parse(line, nullptr, false);
    if (!entry.is_object() || entry.value("msg", "") != "job taken over") continue;
    if (entry.contains("gap_ms")) pauses.push_back(entry["gap_ms"].get<double>());
  }
  return pauses;
}

}  // namespace parley::testing
