#pragma once
// A room and an agent server for one job, without a cluster: the job process is the real one, its
// engines are gateways, and the room is whoever sits at the terminal.
#include <absl/status/status.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "agent/server/gateways.h"
#include "agent/server/job_socket.h"
#include "audio/opus.h"
#include "event/loop.h"
#include "parley/job/v1/job.pb.h"
#include "supervise/zygote.h"

namespace parley::agent {

// Loop thread only.
class Stage {
 public:
  struct Callbacks {
    std::function<void(const std::string& state)> agent_state;  // lk.agent.state
    // What was said, segment by segment; a person's is shown again with each new word.
    std::function<void(bool agent, const std::string& text, bool final)> said;
    std::function<void(const parley::job::v1::TurnReport&)> turn;
    std::function<void(const parley::job::v1::LogLine&)> log;
    std::function<void(std::span<const int16_t>)> audio;  // the agent's voice, 48 kHz
    // Once: the job told its end, or its process went without (then OK is not what it says).
    std::function<void(const absl::Status&)> ended;
  };
  struct Options {
    std::string agent_name;
    std::string metadata;  // of the dispatch
    bool sound = false;    // without: nothing is recognised and nothing spoken, both are text
  };
  // `gateways` outlives the stage.
  Stage(std::shared_ptr<event::Loop> loop, Gateways& gateways, supervise::JobForked forked,
        Options options, Callbacks callbacks);
  ~Stage();

  // The person writes; or says 20 ms at 48 kHz.
  void Write(const std::string& text);
  void Hear(std::span<const int16_t> frame);
  // The person leaves the room: the job ends, unless its agent waits for others.
  void Leave();
  // Ends the job whatever its agent wants.
  void Stop();
  void OnExited(const supervise::JobExited& exited);

 private:
  void OnMessage(const parley::job::v1::FromJob& message);
  void OnJoin();
  void OnRoomCommand(const parley::room::v1::ParticipantCommand& command);
  void OnText(const parley::room::v1::TextPacket& packet);
  void OnAudio(const parley::job::v1::AudioOut& audio);
  void OnTts(const parley::job::v1::TtsCommand& command);
  void OnOutput();
  void Send(parley::job::v1::ToJob& message) { socket_->Send(message); }
  void Send(const parley::room::v1::RoomEvent& event);
  void End(const absl::Status& status);

  const std::shared_ptr<event::Loop> loop_;
  const Options options_;
  const Callbacks callbacks_;
  supervise::UniqueFd output_;
  event::FdWatcher output_watcher_;
  std::string output_line_;
  std::unique_ptr<JobSocket> socket_;
  std::shared_ptr<GatewayStreams> streams_;
  absl::StatusOr<audio::OpusDecoder> decoder_;
  std::vector<int16_t> decoded_;
  parley::job::v1::ToJob heard_;  // reused for each frame
  std::string agent_text_;
  uint64_t texts_ = 0;
  bool ended_ = false;
};

}  // namespace parley::agent
