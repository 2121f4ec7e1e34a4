#include "session/types.h"

#include <fmt/format.h>

namespace parley::session {

std::string_view Name(AgentState state) {
  switch (state) {
    case AgentState::kInitializing:
      return "initializing";
    case AgentState::kIdle:
      return "idle";
    case AgentState::kListening:
      return "listening";
    case AgentState::kThinking:
      return "thinking";
    case AgentState::kSpeaking:
      return "speaking";
  }
  return "";
}

std::string_view Name(UserState state) {
  switch (state) {
    case UserState::kListening:
      return "listening";
    case UserState::kSpeaking:
      return "speaking";
    case UserState::kAway:
      return "away";
  }
  return "";
}

std::string_view Name(TurnDetection detection) {
  switch (detection) {
    case TurnDetection::kVad:
      return "vad";
    case TurnDetection::kStt:
      return "stt";
    case TurnDetection::kSemantic:
      return "semantic";
    case TurnDetection::kManual:
      return "manual";
    case TurnDetection::kRealtime:
      return "realtime";
  }
  return "";
}

std::string_view Name(Context context) {
  switch (context) {
    case Context::kWhole:
      return "whole";
    case Context::kFresh:
      return "fresh";
    case Context::kSummary:
      return "summary";
  }
  return "";
}

std::string_view Name(Stage stage) {
  switch (stage) {
    case Stage::kRecogniser:
      return "recogniser";
    case Stage::kModel:
      return "model";
    case Stage::kTool:
      return "tool";
    case Stage::kVoice:
      return "voice";
    case Stage::kPlayout:
      return "playout";
    case Stage::kProgram:
      return "program";
  }
  return "";
}

std::string_view Name(EndReason reason) {
  switch (reason) {
    case EndReason::kParticipantsLeft:
      return "participants_left";
    case EndReason::kRoomClosed:
      return "room_closed";
    case EndReason::kShutdown:
      return "shutdown";
    case EndReason::kTerminated:
      return "terminated";
    case EndReason::kDrained:
      return "drained";
    case EndReason::kLimit:
      return "limit";
    case EndReason::kReplaced:
      return "replaced";
    case EndReason::kError:
      return "error";
  }
  return "";
}

std::string HandoffTool(std::string_view agent) { return fmt::format("transfer_to_{}", agent); }

std::string LineOf(const ChatItem& item) {
  switch (item.kind) {
    case ChatItem::Kind::kHandoff:
      return fmt::format("handoff {}", item.name);
    case ChatItem::Kind::kToolCall:
      return fmt::format("call {} {}", item.name, item.arguments_json);
    case ChatItem::Kind::kToolResult:
      return fmt::format("{} {}: {}", item.is_error ? "error" : "result", item.name, item.text);
    case ChatItem::Kind::kMessage:
      break;
  }
  return fmt::format("{}{}: {}", item.role, item.interrupted ? " (cut)" : "", item.text);
}

}  // namespace parley::session
