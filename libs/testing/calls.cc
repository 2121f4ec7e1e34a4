#include "testing/calls.h"

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "auth/token.h"
#include "base/status.h"

namespace parley::testing {
namespace {

using nlohmann::json;

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
  PARLEY_RETURN_IF_ERROR(caller->WaitForAgent(absl::Seconds(10)).status());
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
  PARLEY_RETURN_IF_ERROR(call->caller_->WaitForAgent(absl::Seconds(10)).status());
  PARLEY_RETURN_IF_ERROR(call->caller_->WaitForAgentAudio(0, absl::Seconds(10)).status());
  PARLEY_RETURN_IF_ERROR(
      call->caller_->WaitForAgentSilence(0, absl::Milliseconds(500), absl::Seconds(15)).status());
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

}  // namespace parley::testing
