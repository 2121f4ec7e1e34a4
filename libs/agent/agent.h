#pragma once
// What a program that runs agents includes. An agent program gives its name and an entrypoint:
//
//   class FrontDesk : public parley::agent::Agent {
//    public:
//     FrontDesk() : Agent("You are the front desk of a small hotel.") {
//       AddTool({.name = "time", .description = "The time of day", .run = TellTime});
//     }
//     void OnEnter(parley::agent::AgentSession& session) override {
//       session.Say("Good day, how can I help?");
//     }
//   };
//
//   absl::Status Entrypoint(parley::agent::JobContext& job) {
//     parley::agent::SessionConfig config;
//     config.agent = std::make_shared<FrontDesk>();
//     config.stt = {{.engine = "pocketsphinx"}};
//     config.llm = {{.engine = "openai", .model = "gpt-4.1-mini"}};
//     config.tts = {{.engine = "flite", .voice = "slt"}};
//     PARLEY_ASSIGN_OR_RETURN(auto session, job.StartSession(std::move(config)));
//     return session->Wait();
//   }
//
// Each job is a process of its own. The entrypoint runs there on a thread of its own and may block;
// everything here may be called from that thread and from threads it makes, unless it says
// otherwise.
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "log/log.h"
#include "session/commands.h"
#include "session/types.h"

namespace parley::agent {

class JobContext;

// ---- the program ----

// What a job's own code may reach. Configured agents are always kNone.
enum class Network { kHost, kNone };

// A tool that the agent server runs, beside those of the definition.
struct ServerTool {
  std::string name;
  std::string description;
  std::string parameters_json;  // JSON schema of an object
  absl::Duration timeout;
  std::vector<std::string> agents;  // whose it is, by id; empty: everybody's
};

struct JobInfo {
  std::string job_id;
  std::string dispatch_id;
  std::string session_id;
  std::string project;
  std::string agent_name;
  std::string agent_id;        // of the definition; the agent's name for programs
  uint64_t agent_version = 0;  // 0 for programs
  std::string room;
  std::string metadata;                           // of the dispatch
  std::map<std::string, std::string> attributes;  // of the dispatch
  std::string identity;                           // of the agent in the room
  std::string participant_identity;               // publisher and participant jobs: whom it is for
  int attempt = 1;
  bool resuming = false;                 // an earlier attempt ran
  std::string definition_json;           // configured agents: the pinned definition
  std::vector<ServerTool> server_tools;  // … and what its MCP servers offer
};

// What the program says to a job that it is offered.
struct JobAnswer {
  enum class Verdict {
    kAccept,
    kReject,         // another agent server is asked
    kRejectForGood,  // nobody else is: the job ends as FAILED/REJECTED
  };
  Verdict verdict = Verdict::kAccept;
  std::string reason;  // of a rejection, for people
  // Accepted: how the room sees the agent; empty ones are as always. Where somebody else in the
  // room has the identity already, the agent is called that and, after a hyphen, its job's id.
  std::string identity;  // "agent-<job id>"
  std::string name;      // the agent's name
  std::string metadata;
  std::map<std::string, std::string> attributes;  // beside those of the dispatch

  static JobAnswer Accept() { return {}; }
  static JobAnswer Reject(std::string reason) {
    return {.verdict = Verdict::kReject, .reason = std::move(reason)};
  }
  static JobAnswer RejectForGood(std::string reason) {
    return {.verdict = Verdict::kRejectForGood, .reason = std::move(reason)};
  }
};

struct AgentOptions {
  // The exact dispatch name this program serves; empty: the agents of a pool that are defined in
  // the registry.
  std::string agent_name;
  // Runs once per job, in the job's process. Returning OK does not end a job that is in its room:
  // it ends when its session ends, its room closes or Shutdown() is called. An error, or an
  // exception, ends it as FAILED/ENTRYPOINT_ERROR.
  std::function<absl::Status(JobContext&)> entrypoint;
  // Runs once per program, before any job: load models here and all jobs share them. It must leave
  // no thread behind. An error stops the start.
  std::function<absl::Status()> prewarm;
  Network network = Network::kHost;
  // Asked about each job before it is taken; without it, all are. Runs in the agent server, which
  // all its jobs depend on, on a thread of its own and perhaps several times at once: look, decide,
  // return. After 3 s the job is offered elsewhere. An exception rejects the job.
  std::function<JobAnswer(const JobInfo&)> on_request;
};

// ---- the job ----

struct Participant {
  std::string sid;
  std::string identity;
  std::string name;
  std::string metadata;
  std::map<std::string, std::string> attributes;
  bool is_person = false;  // people and phone calls; not agents, not recorders
};

// What the agent receives of the room.
enum class Subscribe {
  kAudio,    // of everybody
  kNothing,  // events, texts and data only
};

// ---- the conversation ----

struct SttEngine {
  std::string engine;  // pocketsphinx, scripted, …
  std::string model;
  std::string language;              // BCP 47
  std::string grammar;               // JSGF text
  std::vector<std::string> phrases;  // hints
  std::map<std::string, std::string> options;
};
struct LlmEngine {
  std::string engine;  // rules, openai, scripted, …
  std::string model;
  std::optional<double> temperature;
  std::optional<int> max_tokens;
  std::string rules_json;
  std::map<std::string, std::string> options;
};
struct TtsEngine {
  std::string engine;  // flite, espeak, scripted, …
  std::string voice;
  std::string language;
  float rate = 1;   // 0.5 to 2
  float pitch = 1;  // 0.5 to 2
  std::map<std::string, std::string> options;
};

// A model that hears and speaks, in place of a recogniser, a model and a voice.
struct RealtimeEngine {
  std::string engine;  // openai-realtime
  std::string model;
  std::string voice;              // empty: the model's default
  std::string language;           // BCP 47: a hint for transcripts
  std::optional<int> max_tokens;  // of an answer
  std::map<std::string, std::string> options;
};

// Something the model may do. `run` is called on a thread of its own with the arguments as a JSON
// object and answers with text for the model; an error's message is shown to the model too. Without
// `run` it is a tool of the definition, which the agent server runs.
struct Tool {
  std::string name;
  std::string description;
  std::string parameters_json = R"({"type":"object","properties":{}})";  // JSON schema
  absl::Duration timeout = absl::Seconds(10);
  std::function<absl::StatusOr<std::string>(std::string_view arguments_json)> run;
  std::string filler;  // said when the user waits for it in silence, e.g. "One moment, please."
  // The agent that goes on when `run` has succeeded; empty: who called it.
  std::string handoff;
  // A call that has succeeded in this conversation is made again, with the same arguments, only
  // when the model says so (argument confirm_duplicate, which `run` does not see).
  bool confirm_duplicates = false;
};

class Agent;
class AgentSession;

// An agent beside the first that the conversation may be handed over to: history, caller and limits
// stay, what is named here changes.
struct AgentConfig {
  // Its hooks; its instructions and tools take the place of those below. May be null.
  std::shared_ptr<Agent> agent;
  std::string name;         // [a-z0-9-]{1,63}, one of its own in the session
  std::string description;  // tells the model when to hand over to it
  std::string instructions;
  std::string greeting;        // said when it takes over; empty: it answers at once
  std::string farewell;        // said before it hands over, where its answer says nothing
  std::vector<LlmEngine> llm;  // empty: the session's
  std::vector<TtsEngine> tts;  // empty: the session's
  std::vector<Tool> tools;
  std::vector<std::string> handoffs;  // names; the model hands over by calling transfer_to_NAME
  session::Context context = session::Context::kWhole;  // what it sees of what was said before
};

// What the user has said, before it is answered.
struct UserTurn {
  std::string text;          // as it is kept and as the model gets it; may be changed
  std::string instructions;  // that the model gets for this answer alone: what was looked up for it
  bool answer = true;        // false: it is neither kept nor answered
};

// Who speaks in a session: what the model is told, what it may do, and what the program does when.
// Derive from it for the hooks. They run on threads of their own and may block; an exception that
// leaves one is logged. OnEnter may still run when the first turn is there; OnUserTurnCompleted
// runs once at a time.
class Agent {
 public:
  explicit Agent(std::string instructions, std::vector<Tool> tools = {})
      : instructions_(std::move(instructions)), tools_(std::move(tools)) {}
  virtual ~Agent() = default;
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // The conversation is this agent's now. What is said here waits for the first person to be there.
  // A process that takes a running conversation over does not call it: the agent is in already.
  virtual void OnEnter(AgentSession& /*session*/) {}
  // The conversation is over, or another agent's: the last call, unless it is handed back. It may
  // still run when the next agent enters. A task (agent/task.h) that begins is no exit, nor is its
  // end an entrance, for those who wait for it.
  virtual void OnExit(AgentSession& /*session*/) {}
  // The session is over. Called on the loop's thread: return at once. For who waits in a hook.
  virtual void OnSessionOver() {}
  // The user's turn is over. It is not answered until this returns, for session::Options::
  // review_timeout at most (5 s, unless set); then the turn counts as it was. After `patience` the
  // user is told `hold` (both of session::Options) and has the word. When the user goes on
  // meanwhile, this is called again with all they have said, and what it says here is forgotten.
  virtual void OnUserTurnCompleted(AgentSession& /*session*/, UserTurn& /*turn*/) {}

  const std::string& instructions() const { return instructions_; }
  const std::vector<Tool>& tools() const { return tools_; }

 protected:
  // In the constructor.
  void AddTool(Tool tool) { tools_.push_back(std::move(tool)); }

 private:
  const std::string instructions_;
  std::vector<Tool> tools_;
};

// What tells speech from the rest.
enum class VoiceDetector {
  kWebrtc,  // WebRTC's, behind a gate of our own
  kSilero,  // neural, where the program has its file (--vad-model); else the other, with a warning
};

// One sound of the background.
struct BackgroundSound {
  // room, office, rain, keyboard, pulse (audio/sounds.h); empty: `samples`, if there are any.
  std::string name;
  std::vector<int16_t> samples;  // 24 kHz mono, played round and round; a minute at most
  double volume = 1;             // 0 to 4
};
// What is heard beside the agent's voice, on a track of its own, `background_audio`.
struct Background {
  BackgroundSound ambient;   // while somebody is there
  BackgroundSound thinking;  // while the agent thinks, or a tool runs
};
// A WAV file of the program's own as samples of a BackgroundSound. Blocks on the disk.
//   NotFound, InvalidArgument  as audio::ReadSpeech
absl::StatusOr<std::vector<int16_t>> ReadSound(const std::string& path);

struct SessionConfig {
  // Who speaks. Its instructions and tools take the place of those below.
  std::shared_ptr<Agent> agent;
  std::string instructions;
  std::string greeting;        // said when the first person is there; empty: the agent waits
  std::vector<SttEngine> stt;  // each a chain: the next serves when one fails
  std::vector<LlmEngine> llm;
  std::vector<TtsEngine> tts;
  // Speech to speech: then `stt`, `llm` and the agents' chains are empty, and `tts` says
  // options.hold alone (empty: nobody does). See session::Options::realtime, set with it.
  std::optional<RealtimeEngine> realtime;
  std::vector<Tool> tools;
  std::string name;                   // the first agent's, where there are several
  std::string farewell;               // as in AgentConfig
  std::vector<std::string> handoffs;  // as in AgentConfig
  std::vector<AgentConfig> agents;    // the others
  VoiceDetector vad = VoiceDetector::kWebrtc;
  session::Options options;         // turn-taking, interruption, limits; see session/types.h
  Background background;            // none, unless set
  bool publish_transcripts = true;  // topic lk.transcription, of both sides
  // Everybody's speech is transcribed and is history, not only of who is talked to; 16 others at
  // most. It takes no part in turns.
  bool transcribe_everybody = false;
  bool keep_transcript = false;  // give the transcript to the session's record at the end
  // Kept as files by the agent server, where its operator gave it a folder for them
  // (--recordings-folder), as long as the session's record: the session for `parley replay`, and
  // the sound (Ogg with Opus; the caller left, the agent right).
  bool record = false;
  bool record_sound = false;
  // Called on the loop's thread: return at once. May be empty.
  std::function<void(const session::ChatItem&)> on_item;
  std::function<void(session::AgentState)> on_agent_state;
  std::function<void(session::UserState)> on_user_state;
  std::function<void(std::string_view text, bool final)> on_user_text;
  std::function<void(const std::string& from, const std::string& to)> on_agent_changed;
  // Where the time of a turn went, from the caller's last word to the first frame of the answer.
  std::function<void(const session::TurnReport&)> on_turn;
  // With transcribe_everybody: what somebody else has said, in full.
  std::function<void(const std::string& identity, std::string_view text)> on_overheard;
  // A data packet of somebody in the room.
  std::function<void(const std::string& identity, const std::string& topic,
                     std::string_view payload)>
      on_data;
  // A key pressed on a telephone: 0 to 9, *, #, A to D. Of the person talked to it may be a turn,
  // too: see session::Options::dtmf_pause.
  std::function<void(const std::string& identity, char key)> on_dtmf;
  // The watchdog: what the caller waits for in silence, when it is slow and when they are given the
  // word, or it is cancelled.
  std::function<void(const session::command::Stalled&)> on_stalled;
  // Lines of the session's recording (session/recording.h), for `parley replay`. They hold all that
  // is said, and what the model and the tools were told: keep them like it. Empty: no recording.
  std::function<void(std::string_view line)> on_recording;
};

// One thing that the agent says, in the hands of who asked for it. Copies are the same speech. It
// is over when it was said to its end, was cut, or was dropped before it began, which all of them
// are when the session ends.
class SpeechHandle {
 public:
  struct State;
  explicit SpeechHandle(std::shared_ptr<State> state) : state_(std::move(state)) {}

  // Blocks until the speech is over, at most for `timeout`; says whether it is. Not from a tool
  // that this speech waits behind: what is said now ends only after the answer that called the
  // tool.
  bool Wait(absl::Duration timeout = absl::InfiniteDuration()) const;
  bool done() const;
  // Once it is over: it was cut or dropped; and what the user has heard of it.
  bool interrupted() const;
  std::string heard() const;
  // Cuts it, or drops it if it waits, even where the user may not interrupt it. Does not wait.
  void Interrupt() const;
  // The next piece of a text that was begun with SpeechOptions::more; sentences are spoken once
  // they are whole. After the last piece, or once the speech is over: no effect.
  void Add(std::string text, bool last) const;

 private:
  std::shared_ptr<State> state_;
};

struct SpeechOptions {
  bool allow_interruptions = true;  // by the user; session::Options may forbid them all
  session::Priority priority = session::Priority::kNormal;
  bool more = false;  // Say: further pieces of the text follow, by SpeechHandle::Add
};

// A conversation in the job's room. Lives as long as its job.
class AgentSession {
 public:
  virtual ~AgentSession() = default;
  // Says `text`, after what is being said and what waits with the same or a higher priority.
  // Answers to the user come first. Does not wait.
  virtual SpeechHandle Say(std::string text, SpeechOptions options = {}) = 0;
  // Ready audio, 24 kHz mono, at most a minute, with the words it says for transcript and history
  // (may be empty). Does not wait.
  //   InvalidArgument  no audio, or too long
  virtual absl::StatusOr<SpeechHandle> SayAudio(std::vector<int16_t> samples, std::string text = {},
                                                SpeechOptions options = {}) = 0;
  // Lets the model speak, as an answer to `instructions` that only it sees. Does not wait.
  virtual SpeechHandle GenerateReply(std::string instructions, SpeechOptions options = {}) = 0;
  // Cuts what is being said and drops what waits.
  virtual void Interrupt() = 0;
  // This agent of the session's goes on, once what is being said has been said; it says its
  // greeting, without one it waits.
  virtual void SetAgent(std::string name) = 0;
  // Adds an agent to the session's, or takes the place of the one of its name, and lets it go on as
  // SetAgent does. A session has 64 at most. Does not wait. Its OnUserTurnCompleted is called only
  // where the session was begun with an Agent.
  //   InvalidArgument  it has no name, or a tool has no name or no timeout
  virtual absl::Status UpdateAgent(AgentConfig agent) = 0;
  // The same for a while: whoever has the conversation waits, and the answer whose tool calls this,
  // until EndTask. Not usually called as such: see RunTask in agent/task.h.
  virtual absl::Status BeginTask(AgentConfig agent) = 0;
  virtual void EndTask() = 0;
  // What ends the user's turn from now on.
  virtual void SetTurnDetection(session::TurnDetection detection) = 0;
  // The user's turn is over now; or what they have said in it does not count.
  virtual void CommitUserTurn() = 0;
  virtual void ClearUserTurn() = 0;
  // Blocks until the session is over. OK: an orderly end.
  virtual absl::Status Wait() = 0;
};

class JobContext {
 public:
  virtual ~JobContext() = default;
  virtual const JobInfo& info() const = 0;
  // Lines go to the job's log, with its ids.
  virtual const log::Logger& log() const = 0;

  // Enters the room; blocks until in, at most 30 s. StartSession does it, with audio, when it has
  // not been done. In already: OK, and nothing changes.
  //   Unavailable, PermissionDenied, …  as the room server says
  //   Aborted                           the job is stopping
  virtual absl::Status Connect(Subscribe subscribe = Subscribe::kAudio) = 0;
  // Those in the room now, the agent itself not counted. Empty before Connect.
  virtual std::vector<Participant> participants() const = 0;
  // Blocks until `identity` is in the room (empty: any person) and answers who it is; enters the
  // room if need be.
  //   DeadlineExceeded  nobody came within `timeout`
  //   Aborted           the job is stopping; as Connect otherwise
  virtual absl::StatusOr<Participant> WaitForParticipant(
      std::string_view identity = {}, absl::Duration timeout = absl::InfiniteDuration()) = 0;
  // The agent's own attributes; "" deletes.
  virtual void SetAttributes(std::map<std::string, std::string> attributes) = 0;
  // A data packet of at most 64 KiB to everybody, or to `destinations`.
  virtual absl::Status SendData(std::string payload, std::string topic, bool reliable = true,
                                std::vector<std::string> destinations = {}) = 0;

  // Presses keys (0 to 9, *, #, A to D; 64 at most), for `destinations` or everybody: to a phone
  // call they are its tones. Does not wait.
  //   InvalidArgument  what is no key, or too many
  virtual absl::Status SendDtmf(std::string_view keys,
                                std::vector<std::string> destinations = {}) = 0;

  // Calls a method that a participant has registered (LiveKit's RPC), and blocks until it has
  // answered. Payloads of up to 15,360 bytes reach every SDK; the limit here is 64 KiB.
  //   InvalidArgument     no identity or method, or too long
  //   Aborted             the job is ending
  //   otherwise           reason RPC_ERROR, metadata `code` (1400 no such method, 1401 nobody of
  //                       that identity, 1501 it does not react within 7 s, 1502 no answer within
  //                       `timeout`, 1500 the method threw, others its own) and `data`
  virtual absl::StatusOr<std::string> PerformRpc(std::string identity, std::string method,
                                                 std::string payload,
                                                 absl::Duration timeout = absl::Seconds(15)) = 0;
  // Answers calls of `method` from now on: on a thread of their own, 16 at a time. An error's
  // message is the caller's error 1500, unless its metadata `code` says another. Null: no more.
  using RpcHandler = std::function<absl::StatusOr<std::string>(const std::string& caller,
                                                               const std::string& payload)>;
  virtual void RegisterRpc(std::string method, RpcHandler handler) = 0;

  // Begins the conversation: one per job. The session belongs to the job.
  //   InvalidArgument      the configuration
  //   FailedPrecondition   there is one already
  virtual absl::StatusOr<AgentSession*> StartSession(SessionConfig config) = 0;

  // State of the program's own (UTF-8, at most 32 KiB): kept with the job from now on, and given to
  // the process that takes the job over when this one is lost. Does not wait.
  //   InvalidArgument  too long
  virtual absl::Status SaveState(std::string state) = 0;
  // What an earlier attempt of this job saved last; "" in a first one.
  virtual std::string restored_state() const = 0;

  // Ends the job as SUCCEEDED/SHUTDOWN once hooks have run. Does not wait.
  virtual void Shutdown(std::string_view reason = {}) = 0;
  // Ends the job as FAILED/DEFINITION_INVALID: the definition itself cannot work, so that no other
  // attempt is made.
  virtual void FailDefinition(std::string_view error) = 0;
  // Runs at the end, on the entrypoint's thread, in the order added, within the grace period.
  virtual void AddShutdownHook(std::function<void()> hook) = 0;
  // True once the job is ending. WaitForShutdown blocks until then or until `timeout`; it says
  // whether it is ending.
  virtual bool stopping() const = 0;
  virtual bool WaitForShutdown(absl::Duration timeout) = 0;
};

// The entrypoint of configured agents: builds the session from the definition in `job`. A
// definition that cannot be served ends the job as DEFINITION_INVALID, with what is wrong.
absl::Status RunConfiguredAgent(JobContext& job);

}  // namespace parley::agent
