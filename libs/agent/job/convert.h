#pragma once
// Between the words of libs/session and the public header, and those on the wire.
#include <vector>

#include "agent/agent.h"
#include "parley/dispatch/v1/types.pb.h"
#include "parley/dispatch/v1/worker.pb.h"
#include "parley/job/v1/job.pb.h"
#include "parley/llm/v1/llm.pb.h"
#include "parley/room/v1/room.pb.h"
#include "parley/speech/v1/speech.pb.h"
#include "session/types.h"

namespace parley::agent {

// Data packets on this topic are keys of a telephone, one each (LiveKit's SipDTMF to its clients).
inline constexpr char kDtmfTopic[] = "parley.dtmf";

JobInfo InfoOf(const parley::job::v1::Assignment& assignment);
parley::speech::v1::RecognizeConfig RecognizeConfigOf(const SessionConfig& config);
// `ready_opus`: recorded speech may come as Opus.
parley::speech::v1::SynthesizeConfig SynthesizeConfigOf(const std::vector<TtsEngine>& engines,
                                                        int rate_hz, bool ready_opus);
// Models, tools and handoffs of one of the session's agents; the items are added for each request.
parley::llm::v1::ChatRequest ChatRequestOf(const SessionConfig& config, const AgentConfig& agent);
// Of a model that hears and speaks, without its tools; `rate_hz` is that of its audio.
parley::llm::v1::RealtimeConfig RealtimeConfigOf(const SessionConfig& config, int rate_hz);
void AddItems(const std::vector<session::ChatItem>& items, parley::llm::v1::ChatRequest& request);
// Times within the sentence that they belong to.
void AddWords(const google::protobuf::RepeatedPtrField<parley::speech::v1::WordTiming>& words,
              std::vector<session::WordTime>& out);
parley::job::v1::TurnReport ReportOf(const session::TurnReport& report);
parley::dispatch::v1::JobReason ReasonOf(session::EndReason reason);
// Why the room is over for the agent. `error` is set where that is a failure.
session::EndReason EndOf(const parley::room::v1::Disconnected& disconnected, std::string& error);
session::EndReason EndOf(parley::job::v1::Shutdown::Why why);
// Left on purpose, or thrown out: will not come back by itself.
bool LeftForGood(parley::room::v1::DisconnectReason reason);
// What is wrong with a configuration; OK: nothing.
absl::Status CheckConfig(const SessionConfig& config);
// … and with an agent that joins later.
absl::Status CheckAgent(const AgentConfig& agent);

}  // namespace parley::agent
