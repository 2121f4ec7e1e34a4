#include "agent/job/convert.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/job/background.h"
#include "base/status.h"

namespace parley::agent {
namespace {

namespace dispatchv1 = parley::dispatch::v1;
namespace jobv1 = parley::job::v1;
namespace llmv1 = parley::llm::v1;
namespace roomv1 = parley::room::v1;
namespace speechv1 = parley::speech::v1;

absl::Status CheckTools(const std::vector<Tool>& tools) {
  for (const Tool& tool : tools) {
    if (tool.name.empty()) return InvalidArgument("tools: one has no name");
    if (tool.timeout <= absl::ZeroDuration()) {
      return InvalidArgument("tools: {}: the timeout is not positive", tool.name);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPart(const std::vector<Tool>& tools, const std::vector<std::string>& handoffs,
                       const std::set<std::string>& agents) {
  PARLEY_RETURN_IF_ERROR(CheckTools(tools));
  for (const Tool& tool : tools) {
    if (!tool.handoff.empty() && !agents.contains(tool.handoff)) {
      return InvalidArgument("tools: {}: there is no agent {}", tool.name, tool.handoff);
    }
  }
  for (const std::string& name : handoffs) {
    if (!agents.contains(name)) return InvalidArgument("handoffs: there is no agent {}", name);
  }
  return absl::OkStatus();
}

// The schema with one more field, by which the model says that it means it.
std::string WithConfirmation(const std::string& parameters_json) {
  auto schema = nlohmann::json::parse(parameters_json, nullptr, false);
  if (!schema.is_object()) return parameters_json;
  if (!schema["properties"].is_object()) schema["properties"] = nlohmann::json::object();
  schema["properties"][session::kConfirmDuplicate] = {
      {"type", "boolean"},
      {"description", "Only if this was done before and the user wants it done once more."}};
  return schema.dump();
}

double Millis(int64_t micros) { return static_cast<double>(micros) / 1000; }

}  // namespace

JobInfo InfoOf(const jobv1::Assignment& assignment) {
  const dispatchv1::Assignment& job = assignment.job();
  JobInfo info{.job_id = job.job_id(),
               .dispatch_id = job.dispatch_id(),
               .session_id = job.session_id(),
               .project = job.project(),
               .agent_name = job.agent_name(),
               .agent_id = job.agent_id().empty() ? job.agent_name() : job.agent_id(),
               .agent_version = job.agent_version(),
               .room = job.room(),
               .metadata = job.metadata(),
               .identity = assignment.identity(),
               .participant_identity = job.participant_identity(),
               .attempt = job.attempt(),
               .resuming = job.resuming(),
               .definition_json = assignment.definition_json()};
  for (const jobv1::ServerTool& tool : assignment.tools()) {
    info.server_tools.push_back({tool.name(),
                                 tool.description(),
                                 tool.parameters_json(),
                                 absl::Milliseconds(tool.timeout_ms()),
                                 {tool.agents().begin(), tool.agents().end()}});
  }
  info.attributes.insert(job.attributes().begin(), job.attributes().end());
  return info;
}

speechv1::RecognizeConfig RecognizeConfigOf(const SessionConfig& config) {
  speechv1::RecognizeConfig out;
  out.set_encoding(speechv1::AUDIO_ENCODING_PCM16);
  out.set_sample_rate_hz(16'000);
  out.set_interim_results(true);
  for (const SttEngine& engine : config.stt) {
    speechv1::EngineConfig& one = *out.add_engines();
    one.set_engine(engine.engine);
    one.set_model(engine.model);
    one.set_language(engine.language);
    one.set_grammar(engine.grammar);
    for (const std::string& phrase : engine.phrases) one.add_phrases(phrase);
    one.mutable_options()->insert(engine.options.begin(), engine.options.end());
  }
  return out;
}

speechv1::SynthesizeConfig SynthesizeConfigOf(const std::vector<TtsEngine>& engines, int rate_hz,
                                              bool ready_opus) {
  speechv1::SynthesizeConfig out;
  out.set_encoding(speechv1::AUDIO_ENCODING_PCM16);
  out.set_sample_rate_hz(rate_hz);
  out.set_ready_opus(ready_opus);
  for (const TtsEngine& engine : engines) {
    speechv1::VoiceConfig& one = *out.add_voices();
    one.set_engine(engine.engine);
    one.set_voice(engine.voice);
    one.set_language(engine.language);
    one.set_rate(engine.rate);
    one.set_pitch(engine.pitch);
    one.mutable_options()->insert(engine.options.begin(), engine.options.end());
  }
  return out;
}

llmv1::ChatRequest ChatRequestOf(const SessionConfig& config, const AgentConfig& agent) {
  llmv1::ChatRequest out;
  for (const LlmEngine& engine : agent.llm) {
    llmv1::ModelConfig& one = *out.add_models();
    one.set_engine(engine.engine);
    one.set_model(engine.model);
    if (engine.temperature) one.set_temperature(*engine.temperature);
    if (engine.max_tokens) one.set_max_tokens(*engine.max_tokens);
    one.set_rules_json(engine.rules_json);
    one.mutable_options()->insert(engine.options.begin(), engine.options.end());
  }
  for (const Tool& tool : agent.tools) {
    llmv1::Tool& one = *out.add_tools();
    one.set_name(tool.name);
    one.set_description(tool.description);
    one.set_parameters_json(tool.confirm_duplicates ? WithConfirmation(tool.parameters_json)
                                                    : tool.parameters_json);
  }
  for (const std::string& name : agent.handoffs) {
    const auto next = std::find_if(config.agents.begin(), config.agents.end(),
                                   [&](const AgentConfig& other) { return other.name == name; });
    llmv1::Tool& one = *out.add_tools();
    one.set_name(session::HandoffTool(name));
    one.set_description("Hands the conversation over to " + name + ".");
    if (next != config.agents.end() && !next->description.empty()) {
      one.set_description(one.description() + " " + next->description);
    }
    one.set_parameters_json(R"({"type":"object","properties":{}})");
  }
  return out;
}

llmv1::RealtimeConfig RealtimeConfigOf(const SessionConfig& config, int rate_hz) {
  llmv1::RealtimeConfig out;
  const RealtimeEngine& realtime = *config.realtime;
  out.mutable_model()->set_engine(realtime.engine);
  out.mutable_model()->set_model(realtime.model);
  if (realtime.max_tokens) out.mutable_model()->set_max_tokens(*realtime.max_tokens);
  out.mutable_model()->mutable_options()->insert(realtime.options.begin(), realtime.options.end());
  out.set_voice(realtime.voice);
  out.set_language(realtime.language);
  out.set_input_rate_hz(16'000);
  out.set_output_rate_hz(rate_hz);
  out.set_server_turns(config.options.turn_detection == session::TurnDetection::kRealtime);
  if (out.server_turns()) {
    out.set_silence_ms(
        static_cast<int32_t>(absl::ToInt64Milliseconds(config.options.min_endpointing_delay)));
  }
  return out;
}

void AddItems(const std::vector<session::ChatItem>& items, llmv1::ChatRequest& request) {
  for (const session::ChatItem& item : items) {
    llmv1::ChatItem& out = *request.add_items();
    switch (item.kind) {
      case session::ChatItem::Kind::kMessage:
        out.mutable_message()->set_role(item.role);
        out.mutable_message()->set_text(item.text);
        out.mutable_message()->set_interrupted(item.interrupted);
        break;
      case session::ChatItem::Kind::kHandoff:  // no part of prompts
        request.mutable_items()->RemoveLast();
        break;
      case session::ChatItem::Kind::kToolCall:
        out.mutable_tool_call()->set_call_id(item.call_id);
        out.mutable_tool_call()->set_name(item.name);
        out.mutable_tool_call()->set_arguments_json(item.arguments_json);
        break;
      case session::ChatItem::Kind::kToolResult:
        out.mutable_tool_result()->set_call_id(item.call_id);
        out.mutable_tool_result()->set_name(item.name);
        out.mutable_tool_result()->set_output(item.text);
        out.mutable_tool_result()->set_is_error(item.is_error);
        break;
    }
  }
}

void AddWords(const google::protobuf::RepeatedPtrField<speechv1::WordTiming>& words,
              std::vector<session::WordTime>& out) {
  for (const speechv1::WordTiming& word : words) {
    out.push_back({word.word(), int64_t{word.start_ms()} * 1000, int64_t{word.end_ms()} * 1000});
  }
}

jobv1::TurnReport ReportOf(const session::TurnReport& report) {
  jobv1::TurnReport out;
  out.set_turn_id(report.turn_id);
  out.set_endpointing_ms(Millis(report.endpointing_us));
  out.set_transcript_ms(Millis(report.transcript_us));
  out.set_llm_ms(Millis(report.llm_us));
  out.set_tts_ms(Millis(report.tts_us));
  out.set_output_ms(Millis(report.output_us));
  out.set_total_ms(Millis(report.total_us));
  out.set_interrupted(report.interrupted);
  out.set_tool_calls(report.tool_calls);
  return out;
}

dispatchv1::JobReason ReasonOf(session::EndReason reason) {
  switch (reason) {
    case session::EndReason::kParticipantsLeft:
      return dispatchv1::JOB_REASON_PARTICIPANTS_LEFT;
    case session::EndReason::kRoomClosed:
      return dispatchv1::JOB_REASON_ROOM_CLOSED;
    case session::EndReason::kShutdown:
      return dispatchv1::JOB_REASON_SHUTDOWN;
    case session::EndReason::kTerminated:
      return dispatchv1::JOB_REASON_TERMINATED;
    case session::EndReason::kDrained:
      return dispatchv1::JOB_REASON_DRAIN_DEADLINE;
    case session::EndReason::kLimit:
      return dispatchv1::JOB_REASON_LIMIT_EXCEEDED;
    case session::EndReason::kReplaced:
      return dispatchv1::JOB_REASON_UNSPECIFIED;
    case session::EndReason::kError:
      return dispatchv1::JOB_REASON_ENTRYPOINT_ERROR;
  }
  return dispatchv1::JOB_REASON_UNSPECIFIED;
}

session::EndReason EndOf(const roomv1::Disconnected& disconnected, std::string& error) {
  switch (disconnected.reason()) {
    case roomv1::DISCONNECT_REASON_ROOM_DELETED:
    case roomv1::DISCONNECT_REASON_ROOM_CLOSED:
      return session::EndReason::kRoomClosed;
    case roomv1::DISCONNECT_REASON_REPLACED:
      return session::EndReason::kReplaced;
    case roomv1::DISCONNECT_REASON_PARTICIPANT_REMOVED:
    case roomv1::DISCONNECT_REASON_DUPLICATE_IDENTITY:
      error = "the agent was removed from its room";
      return session::EndReason::kTerminated;
    default:
      error = disconnected.message().empty() ? "the connection to the room was lost"
                                             : "the room was lost: " + disconnected.message();
      return session::EndReason::kError;
  }
}

session::EndReason EndOf(jobv1::Shutdown::Why why) {
  switch (why) {
    case jobv1::Shutdown::DRAIN:
      return session::EndReason::kDrained;
    case jobv1::Shutdown::ROOM_CLOSED:
      return session::EndReason::kRoomClosed;
    case jobv1::Shutdown::REPLACED:
      return session::EndReason::kReplaced;
    case jobv1::Shutdown::LIMIT:
      return session::EndReason::kLimit;
    default:
      return session::EndReason::kTerminated;
  }
}

bool LeftForGood(roomv1::DisconnectReason reason) {
  return reason != roomv1::DISCONNECT_REASON_CONNECTION_LOST &&
         reason != roomv1::DISCONNECT_REASON_DUPLICATE_IDENTITY &&
         reason != roomv1::DISCONNECT_REASON_SERVER_SHUTDOWN;
}

namespace {

absl::Status CheckRealtime(const SessionConfig& config) {
  const bool alone = config.stt.empty() && config.llm.empty() &&
                     std::all_of(config.agents.begin(), config.agents.end(), [](const auto& one) {
                       return one.llm.empty() && one.tts.empty();
                     });
  if (!alone) {
    return InvalidArgument("realtime: stands in place of stt and llm, and of agents' llm and tts");
  }
  if (config.realtime->engine.empty()) return InvalidArgument("realtime: name an engine");
  const session::TurnDetection turns = config.options.turn_detection;
  if (turns == session::TurnDetection::kStt || turns == session::TurnDetection::kSemantic ||
      config.options.min_interruption_words > 0) {
    return InvalidArgument("realtime: turns and interruptions that count words need stt");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckConfig(const SessionConfig& config) {
  if (config.realtime) {
    PARLEY_RETURN_IF_ERROR(CheckRealtime(config));
  } else if (config.options.realtime ||
             config.options.turn_detection == session::TurnDetection::kRealtime) {
    return InvalidArgument("realtime: name the model that hears and speaks");
  } else if (config.stt.empty()) {
    return InvalidArgument("stt: name at least one engine, e.g. pocketsphinx");
  } else if (config.llm.empty() && !config.options.listen_only) {
    return InvalidArgument("llm: name at least one engine, e.g. rules");
  } else if (config.tts.empty()) {
    return InvalidArgument("tts: name at least one engine, e.g. flite");
  }
  const session::Options& options = config.options;
  if (options.min_endpointing_delay < absl::ZeroDuration() ||
      options.max_endpointing_delay < options.min_endpointing_delay) {
    return InvalidArgument("options: max_endpointing_delay is below min_endpointing_delay");
  }
  PARLEY_RETURN_IF_ERROR(BackgroundPlayer::Check(config.background));
  std::set<std::string> agents = {config.name};
  for (const AgentConfig& one : config.agents) {
    if (!agents.insert(one.name).second || one.name.empty()) {
      return InvalidArgument("agents: \"{}\" is no name of its own", one.name);
    }
  }
  PARLEY_RETURN_IF_ERROR(CheckPart(config.tools, config.handoffs, agents));
  for (const AgentConfig& one : config.agents) {
    PARLEY_RETURN_IF_ERROR(CheckPart(one.tools, one.handoffs, agents));
  }
  return absl::OkStatus();
}

absl::Status CheckAgent(const AgentConfig& agent) {
  if (agent.name.empty()) return InvalidArgument("the agent has no name");
  return CheckTools(agent.tools);
}

}  // namespace parley::agent
