#pragma once
// A scripted caller: joins a room as a participant, plays speech into it, hears the agent, and
// records both on one timeline. What `parley call`, tests and benchmarks call with.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace parley::caller {

// Something that happened in the call. Times are microseconds since the call began (the moment the
// room let us in).
struct CallEvent {
  enum class Type {
    kParticipantJoined,
    kParticipantLeft,
    kAttribute,        // `key` of `identity` became `text` ("" = gone)
    kTrackPublished,   // `key` = sid
    kAgentAudible,     // frames of an agent's track will follow
    kMicrophoneHeard,  // the first listener subscribed to our microphone
    kTranscript,       // a piece on topic lk.transcription; `key` = segment id
    kText,             // on another topic; `key` = topic
    kData,             // `key` = topic, `text` = payload
    kAgentSpeechStarted,
    kAgentSpeechEnded,  // stamped with the end of speech, not with the moment it was noticed
    kDisconnected,      // last; `text` says why
  };
  Type type;
  int64_t at_us = 0;
  std::string identity;
  bool agent = false;  // `identity` is an agent
  std::string key;
  std::string text;
  bool final = false;  // transcripts: the segment is complete
};
std::string_view Name(CallEvent::Type type);

// What one side said in one segment, put together from its pieces.
struct Transcript {
  std::string segment_id;
  std::string identity;  // who is being transcribed
  bool agent = false;
  std::string text;
  bool final = false;
  int64_t first_at_us = 0;
  int64_t last_at_us = 0;
};

struct CallerOptions {
  std::string media_url;  // "host:port" of a room server; follows ROOM_ELSEWHERE
  std::string token;      // participant token: room and identity
  absl::Duration connect_timeout = absl::Seconds(5);
  bool microphone = true;  // publish a track; without it only text and data can be sent
  bool silence = true;     // send silence while nothing plays, as a real microphone does
  bool record = true;      // keep both sides for SaveRecording (11.5 MB a minute)
  int opus_complexity = 5;
  double speech_dbov = -50;  // the agent's frames above this level are speech
  absl::Duration speech_gap = absl::Milliseconds(600);  // silence that ends the agent's speech
  std::map<std::string, std::string> attributes;        // of ours; needs canUpdateOwnMetadata
  // Live view. Called on the caller's thread, in order; must not block or call the caller.
  std::function<void(const CallEvent&)> on_event;
};

// One call. Thread-safe; the waits block the thread that asks, at most until their timeout
// (DeadlineExceeded says what was waited for; Cancelled when the call is over first). Owns one
// thread, which paces the microphone by absolute time and decodes what comes in.
class Caller {
 public:
  // Joins and publishes the microphone. Blocks up to the connect timeout.
  //   Unauthenticated, PermissionDenied, ResourceExhausted, Unavailable  as the room server says
  static absl::StatusOr<std::unique_ptr<Caller>> Connect(CallerOptions options);
  ~Caller();  // as HangUp()
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  int64_t NowMicros() const;  // of the call

  // Queues samples (mono, 8 to 192 kHz) behind what still plays. Does not wait.
  //   FailedPrecondition  no microphone
  absl::Status Play(std::span<const int16_t> samples, int rate_hz);
  // Blocks until everything queued has been sent. Answers when its last sample went out.
  absl::StatusOr<int64_t> WaitPlayed(absl::Duration timeout);
  void StopPlaying();  // drops what is queued

  absl::Status SendText(std::string_view text, std::string_view topic = "lk.chat");
  absl::Status SendData(std::string_view payload, std::string_view topic,
                        const std::vector<std::string>& destinations = {});

  // The first event, old or new, at or after `after_us` for which `matches` is true.
  absl::StatusOr<CallEvent> WaitFor(std::string_view what,
                                    const std::function<bool(const CallEvent&)>& matches,
                                    absl::Duration timeout, int64_t after_us = 0);
  // An agent is in the room and its audio subscribed, and it hears us. Answers its identity.
  absl::StatusOr<std::string> WaitForAgent(absl::Duration timeout);
  // An agent's `lk.agent.state` is (or becomes) `state`.
  absl::Status WaitForAgentState(std::string_view state, absl::Duration timeout);
  // First audible frame of an agent that arrived at or after `after_us`; its time of arrival.
  absl::StatusOr<int64_t> WaitForAgentAudio(int64_t after_us, absl::Duration timeout);
  // The agent spoke at or after `after_us` and has been silent for `quiet` since. Answers when its
  // last audible frame ended.
  absl::StatusOr<int64_t> WaitForAgentSilence(int64_t after_us, absl::Duration quiet,
                                              absl::Duration timeout);
  // A final transcript of the agent (or of a person), first seen at or after `after_us`.
  absl::StatusOr<Transcript> WaitForTranscript(bool of_agent, int64_t after_us,
                                               absl::Duration timeout);

  std::vector<CallEvent> events() const;
  std::vector<Transcript> transcripts() const;
  std::string room_name() const;
  std::string room_sid() const;
  std::string identity() const;
  bool connected() const;
  struct Counters {
    int64_t frames_sent = 0;
    int64_t frames_dropped = 0;  // the stream did not keep up
    int64_t frames_received = 0;
    int64_t frames_background = 0;  // of them, on tracks named background_audio: no speech
    int64_t frames_undecodable = 0;
    int64_t late_ticks = 0;  // the microphone was more than 5 ms behind its time
  };
  Counters counters() const;

  // Leaves in good order; idempotent. Events and the recording stay readable.
  void HangUp();
  // Stereo, 48 kHz: caller left, agents right, on the call's timeline. Blocks on the disk.
  //   FailedPrecondition  not recorded
  absl::Status SaveRecording(const std::string& path) const;
  // The agents' side at 48 kHz between two moments, silence where nothing was heard.
  std::vector<int16_t> AgentAudio(int64_t from_us, int64_t to_us) const;

 private:
  struct Impl;
  explicit Caller(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace parley::caller
