#pragma once
// What the entrypoint's thread holds of its job. The loop's side is JobControl; the two meet in
// JobState.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/agent.h"
#include "agent/job/hooks.h"
#include "agent/job/mailbox.h"
#include "agent/job/rpc_calls.h"
#include "base/mutex.h"
#include "session/commands.h"
#include "session/events.h"

namespace parley::agent {

// What both threads see.
struct JobState {
  Mutex mutex;
  CondVar changed;
  enum class Room { kOutside, kEntering, kInside };
  Room room ABSL_GUARDED_BY(mutex) = Room::kOutside;
  absl::Status room_error ABSL_GUARDED_BY(mutex);
  std::vector<Participant> participants ABSL_GUARDED_BY(mutex);
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  bool session_made ABSL_GUARDED_BY(mutex) = false;  // StartSession has its answer
  absl::Status session_error ABSL_GUARDED_BY(mutex);
  bool session_over ABSL_GUARDED_BY(mutex) = false;
  absl::Status session_end ABSL_GUARDED_BY(mutex);
  std::vector<std::function<void()>> hooks ABSL_GUARDED_BY(mutex);
  // Whose OnExit is owed: who waits for tasks first, who has the conversation last.
  std::vector<std::shared_ptr<AgentHooks>> present ABSL_GUARDED_BY(mutex);
  uint64_t speeches ABSL_GUARDED_BY(mutex) = 0;
  // Those that are not over yet, by handle.
  std::map<uint64_t, std::shared_ptr<SpeechHandle::State>> said ABSL_GUARDED_BY(mutex);

  void SpeechDone(const session::command::SpeechDone& done);
  // And with it all its speeches.
  void SessionOver(absl::Status end);
};

// What a SpeechHandle stands for.
struct SpeechHandle::State {
  std::shared_ptr<JobState> job;
  std::function<void()> interrupt;
  std::function<void(std::string text, bool last)> add;
  // Guarded by the job's mutex.
  bool done = false;
  bool interrupted = false;
  std::string heard;
};

// A status that shares nothing with the original, for the way from one thread to another: thread
// sanitizer cannot see how the packaged library counts its references.
inline absl::Status Detached(const absl::Status& status) {
  return absl::Status(status.code(), status.message());
}

// The loop's side. Loop thread only.
class JobControl {
 public:
  virtual ~JobControl() = default;
  virtual void EnterRoom(Subscribe subscribe) = 0;
  virtual void SaveState(std::string state) = 0;
  virtual void SetAttributes(std::map<std::string, std::string> attributes) = 0;
  virtual void SendData(std::string payload, std::string topic, bool reliable,
                        std::vector<std::string> destinations) = 0;
  virtual void SendDtmf(char key, std::vector<std::string> destinations) = 0;
  // `done` is called once, on the loop's thread.
  virtual void PerformRpc(std::string identity, std::string method, std::string payload,
                          absl::Duration timeout, RpcCalls::Done done) = 0;
  virtual void RegisterRpc(std::string method, JobContext::RpcHandler handler) = 0;
  // `hooks`: of the agents that have any, by name.
  virtual void StartConversation(SessionConfig config, HooksByName hooks) = 0;
  // `hooks` may be null.
  virtual void AddAgent(AgentConfig agent, std::shared_ptr<AgentHooks> hooks,
                        session::SwitchKind how) = 0;
  virtual void ToConversation(session::Event event) = 0;
  virtual void SayAudio(std::vector<int16_t> samples, session::event::Say say) = 0;
  virtual void RequestShutdown(std::string reason) = 0;
  virtual void DefinitionFailed(std::string error) = 0;
  virtual void Log(log::Level level, std::string message,
                   std::map<std::string, std::string> fields) = 0;
};

class Context final : public JobContext,
                      private AgentSession,
                      public std::enable_shared_from_this<Context> {
 public:
  // `control` is used on the loop's thread only, through `mailbox`.
  Context(JobInfo info, std::string restored_state, std::shared_ptr<JobState> state,
          std::shared_ptr<Mailbox> mailbox, JobControl& control);

  const JobInfo& info() const override { return info_; }
  const log::Logger& log() const override { return log_; }
  absl::Status Connect(Subscribe subscribe) override;
  std::vector<Participant> participants() const override;
  absl::StatusOr<Participant> WaitForParticipant(std::string_view identity,
                                                 absl::Duration timeout) override;
  absl::Status SaveState(std::string state) override;
  std::string restored_state() const override { return restored_state_; }
  void SetAttributes(std::map<std::string, std::string> attributes) override;
  absl::Status SendData(std::string payload, std::string topic, bool reliable,
                        std::vector<std::string> destinations) override;
  absl::Status SendDtmf(std::string_view keys, std::vector<std::string> destinations) override;
  absl::StatusOr<std::string> PerformRpc(std::string identity, std::string method,
                                         std::string payload, absl::Duration timeout) override;
  void RegisterRpc(std::string method, RpcHandler handler) override;
  absl::StatusOr<AgentSession*> StartSession(SessionConfig config) override;
  void Shutdown(std::string_view reason) override;
  void FailDefinition(std::string_view error) override;
  void AddShutdownHook(std::function<void()> hook) override;
  bool stopping() const override;
  bool WaitForShutdown(absl::Duration timeout) override;

 private:
  // AgentSession
  SpeechHandle Say(std::string text, SpeechOptions options) override;
  SpeechHandle GenerateReply(std::string instructions, SpeechOptions options) override;
  void Interrupt() override;
  absl::StatusOr<SpeechHandle> SayAudio(std::vector<int16_t> samples, std::string text,
                                        SpeechOptions options) override;
  void SetAgent(std::string name) override;
  absl::Status UpdateAgent(AgentConfig agent) override;
  absl::Status BeginTask(AgentConfig agent) override;
  void EndTask() override;
  void SetTurnDetection(session::TurnDetection detection) override;
  void CommitUserTurn() override;
  void ClearUserTurn() override;
  absl::Status Wait() override;

  absl::Status Add(AgentConfig agent, session::SwitchKind how);
  std::shared_ptr<AgentHooks> HooksOf(const std::shared_ptr<Agent>& agent);
  // False: it reached nobody.
  bool Tell(session::Event event);
  // Makes a handle and tells what `event_of` makes of its number.
  SpeechHandle Begin(const std::function<bool(uint64_t handle)>& tell);

  const JobInfo info_;
  const std::string restored_state_;
  const std::shared_ptr<JobState> state_;
  const std::shared_ptr<Mailbox> mailbox_;
  JobControl& control_;
  log::Logger log_;
  bool session_asked_ = false;  // guarded by state_->mutex
};

}  // namespace parley::agent
