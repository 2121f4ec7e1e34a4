#include "agent/server/media.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <random>
#include <utility>

#include "base/status.h"
#include "rpc/channel.h"

namespace parley::agent {
namespace {

using parley::room::v1::AttachRequest;
using parley::room::v1::AttachResponse;
using parley::room::v1::FrameBatch;
using parley::room::v1::Joined;
using parley::room::v1::ParticipantCommand;
using parley::room::v1::RoomEvent;
using parley::room::v1::SessionClosed;
using parley::room::v1::SessionCommand;
using parley::room::v1::SessionFrame;

constexpr int kMaxRedirects = 3;
constexpr size_t kLateBatches = 50;      // half a second behind: newest audio first
constexpr int kMaxBatchesToLoop = 200;   // posted and not yet handled
constexpr int64_t kPauseUs = 100'000;    // without audio of a session's: what follows is new
constexpr size_t kMaxAhead = 32;         // frames of one session that wait for their time
constexpr size_t kStreamOutbox = 16384;  // commands of all jobs; each is answered in a round trip
constexpr size_t kMostCommandBytes = 256 << 10;  // in one message, and one command more

absl::Duration Jitter() {  // 0.2 to 2 s
  thread_local std::minstd_rand random(std::random_device{}());
  return absl::Milliseconds(std::uniform_int_distribution<int>(200, 2000)(random));
}

// The server was lost or stops, not the room: another one has it.
bool GoesOnElsewhere(parley::room::v1::DisconnectReason reason) {
  return reason == parley::room::v1::DISCONNECT_REASON_SERVER_SHUTDOWN ||
         reason == parley::room::v1::DISCONNECT_REASON_CONNECTION_LOST;
}

}  // namespace

struct MediaHub::Link {
  explicit Link(event::Loop& loop) : flush_timer(loop), connect_timer(loop) {}
  std::string url;
  std::unique_ptr<parley::room::v1::MediaService::Stub> stub;
  std::shared_ptr<Stream> stream;  // null while broken
  uint64_t generation = 0;         // of streams
  bool answered = false;           // the stream has carried an answer
  bool failed_before = false;      // the next attempt waits
  uint32_t last_session = 0;
  std::map<uint32_t, Handle> sessions;  // by their number on the stream
  FrameBatch batch;
  google::protobuf::RepeatedPtrField<SessionCommand> commands;  // go along, before the frames
  size_t command_bytes = 0;
  bool takes_commands = false;  // the server knows such
  int64_t flushed_us = 0;
  bool flush_armed = false;
  event::Timer flush_timer;
  event::Timer connect_timer;
  bool connect_armed = false;
  std::shared_ptr<std::atomic<int>> in_flight = std::make_shared<std::atomic<int>>(0);
};

struct MediaHub::Session {
  enum class State { kWaiting, kOpening, kOpen };
  Handle handle = 0;
  RoomSink* sink = nullptr;
  std::string url;
  std::string token;
  parley::room::v1::JoinOptions options;
  State state = State::kWaiting;
  uint32_t number = 0;     // on its link's stream, while opening or open
  int64_t open_at_us = 0;  // kWaiting: not before
  int64_t give_up_us = 0;  // not open by then: failed
  int redirects = 0;
  bool joined_once = false;
  bool disconnected = false;                  // the sink has had its last event
  std::vector<ParticipantCommand> publishes;  // said again when the stream had broken
  ParticipantCommand attributes;              // likewise, merged
  std::set<std::string> others;               // identities the sink knows of
  struct Ahead {
    int64_t due_us;
    SessionFrame frame;
  };
  std::deque<Ahead> ahead;  // in the order of their times
  int64_t audio_us = 0;     // when it last sent any
};

MediaHub::MediaHub(std::shared_ptr<event::Loop> loop, Options options, AgentServerMetrics& metrics,
                   log::Logger log)
    : loop_(std::move(loop)),
      options_(std::move(options)),
      metrics_(metrics),
      log_(std::move(log)),
      pace_(*loop_),
      sweep_(*loop_) {}

MediaHub::~MediaHub() {
  *self_ = nullptr;
  for (auto& [url, link] : links_) {
    if (link->stream != nullptr) link->stream->Cancel();
  }
}

void MediaHub::SetWorker(std::string worker_id, std::string instance) {
  options_.worker_id = std::move(worker_id);
  options_.instance = std::move(instance);
  for (auto& [url, link] : links_) {
    if (link->stream != nullptr) link->stream->Cancel();
  }
}

// ---- links ----

MediaHub::Link& MediaHub::LinkTo(const std::string& url) {
  std::unique_ptr<Link>& link = links_[url];
  if (link == nullptr) {
    link = std::make_unique<Link>(*loop_);
    link->url = url;
    link->stub = parley::room::v1::MediaService::NewStub(rpc::MakeCallChannel(url));
  }
  return *link;
}

void MediaHub::Connect(Link& link) {
  if (link.stream != nullptr || link.connect_armed) return;
  if (link.failed_before) {
    link.failed_before = false;
    link.connect_armed = true;
    link.connect_timer.StartOnce(Jitter(), [this, &link] {
      link.connect_armed = false;
      Connect(link);
    });
    return;
  }
  link.answered = false;
  const uint64_t generation = ++link.generation;
  Stream::Options options;
  options.bearer = options_.token();
  options.outbox_limit = kStreamOutbox;
  options.on_message = [loop = loop_, self = self_, url = link.url, generation,
                        in_flight = link.in_flight,
                        &late = metrics_.late_in](AttachResponse& response) {
    if (response.has_frames() && in_flight->load() > kMaxBatchesToLoop) {
      late.Increment(response.frames().frames_size());
      return;
    }
    in_flight->fetch_add(1);
    loop->Post([self, url, generation, in_flight, response = std::move(response)] {
      in_flight->fetch_sub(1);
      if (*self != nullptr) (*self)->OnMessage(url, generation, response);
    });
  };
  options.on_done = [loop = loop_, self = self_, url = link.url,
                     generation](const absl::Status& status) {
    loop->Post([self, url, generation, status] {
      if (*self != nullptr) (*self)->OnBroken(url, generation, status);
    });
  };
  link.stream = Stream::Open(
      [&link](auto* context, auto* reactor) { link.stub->async()->Attach(context, reactor); },
      std::move(options));
  link.last_session = 0;
  link.takes_commands = false;
  link.sessions.clear();
  AttachRequest hello;
  hello.mutable_hello()->set_worker_id(options_.worker_id);
  hello.mutable_hello()->set_instance(options_.instance);
  link.stream->Send(std::move(hello));
  for (auto& [handle, session] : sessions_) {
    if (session->url == link.url && session->state == Session::State::kWaiting) Open(*session);
  }
}

void MediaHub::OnBroken(const std::string& url, uint64_t generation, const absl::Status& status) {
  const auto it = links_.find(url);
  if (it == links_.end() || it->second->generation != generation) return;
  Link& link = *it->second;
  link.stream.reset();
  link.batch.Clear();
  link.commands.Clear();
  link.command_bytes = 0;
  const std::map<uint32_t, Handle> lost = std::exchange(link.sessions, {});
  bool any = false;
  for (const auto& [number, handle] : lost) {
    const auto found = sessions_.find(handle);
    if (found == sessions_.end()) continue;
    any = true;
    Session& session = *found->second;
    if (session.state == Session::State::kOpen) {
      session.give_up_us = loop_->NowMicros() + absl::ToInt64Microseconds(GiveUpAfter(session));
    }
    session.state = Session::State::kWaiting;
    session.number = 0;
    session.open_at_us = 0;
  }
  // Those that were told to come here, and found nobody.
  if (!link.answered && url != options_.default_url) {
    for (const auto& [handle, session] : sessions_) {
      if (session->url == url) AskAnew(*session);
    }
    any = false;
  }
  if (!any) {
    links_.erase(it);  // that room server may be gone for good
    return Sweep();
  }
  metrics_.media_breaks.Increment();
  log_.Warn("room server stream broke",
            {{"url", url}, {"sessions", lost.size()}, {"error", Message(status)}});
  link.failed_before = !link.answered;  // one that had worked is opened again at once
  Connect(link);
  Sweep();
}

void MediaHub::OnMessage(const std::string& url, uint64_t generation,
                         const AttachResponse& response) {
  const auto it = links_.find(url);
  if (it == links_.end() || it->second->generation != generation) return;
  Link& link = *it->second;
  link.answered = true;
  if (response.has_frames()) return OnFrames(link, response.frames());
  uint32_t number = 0;
  if (response.has_opened()) {
    number = response.opened().session();
    link.takes_commands = response.opened().takes_commands();
  }
  if (response.has_closed()) number = response.closed().session();
  if (response.has_event()) number = response.event().session();
  const auto place = link.sessions.find(number);
  if (place == link.sessions.end()) return;  // left already
  Session& session = *sessions_.at(place->second);
  if (response.has_opened()) OnOpened(session, response.opened().joined());
  if (response.has_event()) OnEvent(session, response.event().event());
  if (response.has_closed()) OnClosed(session, response.closed());
}

void MediaHub::OnFrames(Link& link, const FrameBatch& frames) {
  metrics_.frames_in.Increment(frames.frames_size());
  for (const SessionFrame& frame : frames.frames()) {
    const auto place = link.sessions.find(frame.session());
    if (place == link.sessions.end()) continue;
    sessions_.at(place->second)->sink->OnRoomAudio(frame);
  }
}

// Sent at once when nothing was sent for a tick, gathered until the tick's end otherwise: a lone
// session waits for nothing, hundreds share their messages.
void MediaHub::FlushSoon(Link& link, int64_t now_us) {
  const int64_t due = link.flushed_us + absl::ToInt64Microseconds(options_.flush_interval) - now_us;
  if (due <= 0) return Flush(link);
  if (std::exchange(link.flush_armed, true)) return;
  link.flush_timer.StartOnce(absl::Microseconds(due), [this, &link] {
    link.flush_armed = false;
    Flush(link);
  });
}

void MediaHub::Flush(Link& link) {
  if (link.stream == nullptr) return;
  const int frames = link.batch.frames_size();
  const int commands = link.commands.size();
  if (frames == 0 && commands == 0) return;
  link.flushed_us = loop_->NowMicros();
  AttachRequest request;
  request.mutable_commands()->Swap(&link.commands);
  link.command_bytes = 0;
  if (link.stream->queued() > kLateBatches) {
    metrics_.late_out.Increment(frames);
    link.batch.Clear();
    if (commands == 0) return;
  } else if (frames > 0) {
    metrics_.frames_out.Increment(frames);
    link.batch.Swap(request.mutable_frames());
  }
  if (link.stream->Send(std::move(request)) || commands == 0) return;
  log_.Warn("room commands dropped: the room server does not keep up",
            {{"url", link.url}, {"commands", commands}});
}

// ---- sessions ----

MediaHub::Handle MediaHub::Join(RoomSink& sink, const std::string& media_url,
                                const std::string& room_token,
                                const parley::room::v1::JoinOptions& options) {
  auto session = std::make_unique<Session>();
  session->handle = ++last_handle_;
  session->sink = &sink;
  session->url = media_url.empty() ? options_.default_url : media_url;
  session->token = room_token;
  session->options = options;
  session->give_up_us = loop_->NowMicros() + absl::ToInt64Microseconds(options_.give_up);
  Session& joined = *session;
  sessions_[joined.handle] = std::move(session);
  Open(joined);
  Sweep();
  return joined.handle;
}

void MediaHub::Open(Session& session) {
  Link& link = LinkTo(session.url);
  if (link.stream == nullptr) return Connect(link);  // opens all that wait
  session.state = Session::State::kOpening;
  session.number = ++link.last_session;
  link.sessions[session.number] = session.handle;
  AttachRequest request;
  request.mutable_open()->set_session(session.number);
  request.mutable_open()->set_token(session.token);
  *request.mutable_open()->mutable_options() = session.options;
  if (!link.stream->Send(std::move(request))) link.stream->Cancel();
}

void MediaHub::OnOpened(Session& session, const Joined& joined) {
  session.state = Session::State::kOpen;
  session.redirects = 0;
  std::set<std::string> now;
  for (const auto& other : joined.others()) now.insert(other.identity());
  if (!session.joined_once) {
    session.joined_once = true;
    session.others = std::move(now);
    // It may not be the one that was asked for; after an outage it is to be the same.
    if (!session.options.identity().empty()) {
      session.options.set_identity(joined.participant().identity());
    }
    session.sink->OnJoined(joined);
    return;
  }
  // Back after an outage: the job has not noticed. Say what it said, and tell it what it missed.
  Link& link = *links_.at(session.url);
  const auto say = [&](const ParticipantCommand& command) {
    AttachRequest request;
    request.mutable_command()->set_session(session.number);
    *request.mutable_command()->mutable_command() = command;
    link.stream->Send(std::move(request));
  };
  for (const ParticipantCommand& publish : session.publishes) say(publish);
  if (session.attributes.has_update()) say(session.attributes);
  for (const std::string& identity : std::exchange(session.others, now)) {
    if (now.contains(identity)) continue;
    RoomEvent left;
    left.mutable_participant_left()->set_identity(identity);
    left.mutable_participant_left()->set_reason(
        parley::room::v1::DISCONNECT_REASON_CONNECTION_LOST);
    session.sink->OnRoomEvent(left);
  }
  for (const auto& other : joined.others()) {
    RoomEvent event;
    *event.mutable_participant_joined()->mutable_participant() = other;
    session.sink->OnRoomEvent(event);
  }
  log_.Info("room session resumed", {{"url", session.url}});
}

void MediaHub::OnEvent(Session& session, const RoomEvent& event) {
  if (event.has_participant_joined()) {
    session.others.insert(event.participant_joined().participant().identity());
  } else if (event.has_participant_left()) {
    session.others.erase(event.participant_left().identity());
  } else if (event.has_disconnected()) {
    if (GoesOnElsewhere(event.disconnected().reason())) return;  // `closed` follows
    session.disconnected = true;
  }
  session.sink->OnRoomEvent(event);
}

void MediaHub::OnClosed(Session& session, const SessionClosed& closed) {
  Link& link = *links_.at(session.url);
  link.sessions.erase(session.number);
  session.number = 0;
  const bool was_open = session.state == Session::State::kOpen;
  session.state = Session::State::kWaiting;
  // The next stream goes to a server that takes rooms.
  if (closed.reason() == "DRAINING" && link.sessions.empty()) link.stream->Cancel();
  if (was_open && !session.disconnected && GoesOnElsewhere(closed.disconnect_reason())) {
    session.give_up_us = loop_->NowMicros() + absl::ToInt64Microseconds(GiveUpAfter(session));
    AskAnew(session);
    return Sweep();
  }
  if (!session.disconnected && closed.reason() == "ROOM_ELSEWHERE" && !closed.media_url().empty() &&
      ++session.redirects <= kMaxRedirects) {
    session.url = closed.media_url();
    return Open(session);
  }
  const bool outage = closed.code() == static_cast<int>(absl::StatusCode::kUnavailable);
  if (!session.disconnected && outage) return Reopen(session, Jitter());
  Fail(session, closed);
}

void MediaHub::Reopen(Session& session, absl::Duration delay) {
  const int64_t now = loop_->NowMicros();
  session.open_at_us = now + absl::ToInt64Microseconds(delay);
  session.give_up_us =
      std::min(session.give_up_us, now + absl::ToInt64Microseconds(GiveUpAfter(session)));
  Sweep();
}

void MediaHub::AskAnew(Session& session) {
  session.url = options_.default_url;
  session.redirects = 0;
  session.open_at_us = loop_->NowMicros() + absl::ToInt64Microseconds(Jitter() / 4);
}

absl::Duration MediaHub::GiveUpAfter(const Session& session) const {
  return session.joined_once ? options_.give_up_again : options_.give_up;
}

void MediaHub::Fail(Session& session, const SessionClosed& why) {
  const std::unique_ptr<Session> over = std::move(sessions_.at(session.handle));
  const auto link = links_.find(over->url);
  if (over->state == Session::State::kOpening && link != links_.end() &&
      link->second->stream != nullptr) {
    SayLeave(*link->second, over->number, parley::room::v1::DISCONNECT_REASON_CONNECTION_LOST);
  }
  Detach(*over);
  if (over->disconnected) return;
  if (!over->joined_once) return over->sink->OnJoinFailed(why);
  RoomEvent event;
  event.mutable_disconnected()->set_reason(why.disconnect_reason());
  event.mutable_disconnected()->set_message(why.message());
  over->sink->OnRoomEvent(event);
}

void MediaHub::SayLeave(Link& link, uint32_t number, parley::room::v1::DisconnectReason reason) {
  AttachRequest request;
  request.mutable_command()->set_session(number);
  request.mutable_command()->mutable_command()->mutable_leave()->set_reason(reason);
  link.stream->Send(std::move(request));
}

void MediaHub::Detach(Session& session) {
  const auto link = links_.find(session.url);
  if (link != links_.end()) link->second->sessions.erase(session.number);
  sessions_.erase(session.handle);
}

void MediaHub::Command(Handle handle, const ParticipantCommand& command) {
  const auto it = sessions_.find(handle);
  if (it == sessions_.end()) return;
  Session& session = *it->second;
  if (command.has_publish()) session.publishes.push_back(command);
  if (command.has_update()) session.attributes.MergeFrom(command);
  if (session.state != Session::State::kOpen) return;
  Link& link = *links_.at(session.url);
  // Nothing of a track comes after its end. Texts, data and states may be some milliseconds ahead
  // of the audio: there are several a second of each call, and each would send a batch off.
  if (command.has_unpublish() || command.has_set_muted() || command.has_leave()) Flush(link);
  if (!link.takes_commands) {
    AttachRequest request;
    request.mutable_command()->set_session(session.number);
    *request.mutable_command()->mutable_command() = command;
    if (link.stream == nullptr || !link.stream->Send(std::move(request))) {
      log_.Warn("room command dropped: the room server does not keep up", {{"url", link.url}});
    }
    return;
  }
  SessionCommand& one = *link.commands.Add();
  one.set_session(session.number);
  *one.mutable_command() = command;
  link.command_bytes += one.ByteSizeLong();
  const bool waits = command.has_text() || command.has_data() || command.has_update();
  if (!waits || link.command_bytes > kMostCommandBytes) return Flush(link);
  FlushSoon(link, loop_->NowMicros());
}

void MediaHub::SendAudio(Handle handle, SessionFrame frame, int64_t due_us) {
  const auto it = sessions_.find(handle);
  if (it == sessions_.end() || it->second->state != Session::State::kOpen) {
    metrics_.late_out.Increment();
    return;
  }
  Session& session = *it->second;
  const int64_t now_us = loop_->NowMicros();
  frame.set_session(session.number);
  // Behind what waits already of its track, whatever its own time.
  const auto last = std::find_if(
      session.ahead.rbegin(), session.ahead.rend(),
      [&](const auto& one) { return one.frame.track_number() == frame.track_number(); });
  const bool waits = last != session.ahead.rend();
  if (due_us > now_us || waits) {
    if (due_us > now_us + 2 * absl::ToInt64Microseconds(kAudioAhead) ||
        session.ahead.size() >= kMaxAhead) {
      return metrics_.late_out.Increment();
    }
    if (waits) due_us = std::max(due_us, last->due_us);
    const auto place = std::ranges::upper_bound(session.ahead, due_us, {}, &Session::Ahead::due_us);
    session.ahead.insert(place, {due_us, std::move(frame)});
    ahead_.insert(handle);
    if (!std::exchange(pacing_, true)) {
      pace_.StartRepeating(options_.flush_interval, [this] { Pace(); });
    }
    return;
  }
  Link& link = *links_.at(session.url);
  *link.batch.add_frames() = std::move(frame);
  // The first of an answer is what somebody waits for.
  if (now_us - std::exchange(session.audio_us, now_us) > kPauseUs) return Flush(link);
  FlushSoon(link, now_us);
}

void MediaHub::CutAudio(Handle handle, uint32_t track_number, int64_t after_us) {
  const auto it = sessions_.find(handle);
  if (it == sessions_.end()) return;
  std::erase_if(it->second->ahead, [&](const auto& one) {
    return one.due_us > after_us && one.frame.track_number() == track_number;
  });
}

void MediaHub::TakeDue(Link& link, Session& session, int64_t until_us) {
  while (!session.ahead.empty() && session.ahead.front().due_us <= until_us) {
    SessionFrame& frame = session.ahead.front().frame;
    session.audio_us = until_us;
    frame.set_session(session.number);  // perhaps on a new stream by now
    *link.batch.add_frames() = std::move(frame);
    session.ahead.pop_front();
  }
}

// One beat of all agents that speak: their frames leave in one message.
void MediaHub::Pace() {
  const int64_t until_us =
      loop_->NowMicros() + absl::ToInt64Microseconds(options_.flush_interval) / 2;
  for (auto it = ahead_.begin(); it != ahead_.end();) {
    const auto found = sessions_.find(*it);
    if (found != sessions_.end()) {
      Session& session = *found->second;
      if (session.state == Session::State::kOpen) {
        TakeDue(*links_.at(session.url), session, until_us);
      } else {
        std::erase_if(session.ahead, [&](const auto& one) { return one.due_us <= until_us; });
      }
    }
    const bool over = found == sessions_.end() || found->second->ahead.empty();
    it = over ? ahead_.erase(it) : std::next(it);
  }
  for (auto& [url, link] : links_) Flush(*link);
  if (!ahead_.empty()) return;
  pacing_ = false;
  pace_.Stop();
}

void MediaHub::Leave(Handle handle, parley::room::v1::DisconnectReason reason) {
  const auto it = sessions_.find(handle);
  if (it == sessions_.end()) return;
  const std::unique_ptr<Session> session = std::move(it->second);
  const auto link = links_.find(session->url);
  if (link != links_.end() && link->second->stream != nullptr &&
      session->state != Session::State::kWaiting) {
    if (session->state == Session::State::kOpen) {
      TakeDue(*link->second, *session, loop_->NowMicros());
    }
    Flush(*link->second);
    SayLeave(*link->second, session->number, reason);
  }
  Detach(*session);
}

bool MediaHub::Connected(Handle handle) const {
  const auto it = sessions_.find(handle);
  return it != sessions_.end() && it->second->state == Session::State::kOpen;
}

void MediaHub::KeepTrying(bool on) {
  if (std::exchange(keep_trying_, on) == on || on) return;
  const int64_t now = loop_->NowMicros();
  for (auto& [handle, session] : sessions_) {
    session->give_up_us =
        std::max(session->give_up_us, now + absl::ToInt64Microseconds(GiveUpAfter(*session)));
  }
}

// Opens what waits, and gives up what has waited too long. Ticks only while something waits.
void MediaHub::Sweep() {
  const int64_t now = loop_->NowMicros();
  std::vector<Handle> failed;
  bool waiting = false;
  for (auto& [handle, session] : sessions_) {
    if (session->state == Session::State::kOpen) continue;
    if (now >= session->give_up_us && !keep_trying_) {
      failed.push_back(handle);
      continue;
    }
    waiting = true;
    if (session->state == Session::State::kWaiting && now >= session->open_at_us) Open(*session);
  }
  for (Handle handle : failed) {
    const auto it = sessions_.find(handle);
    if (it == sessions_.end()) continue;
    SessionClosed why;
    why.set_code(static_cast<int>(absl::StatusCode::kUnavailable));
    why.set_reason("ROOM_SERVER_UNAVAILABLE");
    why.set_message("no room server answered at " + it->second->url);
    why.set_disconnect_reason(parley::room::v1::DISCONNECT_REASON_CONNECTION_LOST);
    Fail(*it->second, why);
  }
  if (waiting && !sweeping_) {
    sweeping_ = true;
    sweep_.StartOnce(absl::Milliseconds(100), [this] {
      sweeping_ = false;
      Sweep();
    });
  }
}

}  // namespace parley::agent
