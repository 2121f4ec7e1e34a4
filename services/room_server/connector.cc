#include "room_server/connector.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "base/status.h"
#include "room_server/signal_codec.h"

namespace parley::room_server {
namespace {

constexpr int kMaxWaiting = 8192;  // events on their way to the loop
constexpr int64_t kAbandonedUs = 60'000'000;
constexpr absl::Duration kTick = absl::Seconds(1);
constexpr size_t kMaxTags = 8192;
constexpr auto kTranscribedTrack = "lk.transcribed_track_id";

room::Kind KindOf(lk::ParticipantInfo::Kind kind) {
  switch (kind) {
    case lk::ParticipantInfo::AGENT:
      return room::Kind::kAgent;
    case lk::ParticipantInfo::EGRESS:
      return room::Kind::kRecorder;
    case lk::ParticipantInfo::SIP:
      return room::Kind::kSip;
    default:
      return room::Kind::kStandard;
  }
}

room::LeaveReason ReasonOf(lk::DisconnectReason reason) {
  switch (reason) {
    case lk::CLIENT_INITIATED:
      return room::LeaveReason::kClientInitiated;
    case lk::DUPLICATE_IDENTITY:
      return room::LeaveReason::kDuplicateIdentity;
    case lk::PARTICIPANT_REMOVED:
      return room::LeaveReason::kParticipantRemoved;
    case lk::ROOM_DELETED:
      return room::LeaveReason::kRoomDeleted;
    case lk::ROOM_CLOSED:
      return room::LeaveReason::kRoomClosed;
    default:
      return room::LeaveReason::kConnectionLost;
  }
}

room::Quality QualityOf(lk::ConnectionQuality quality) {
  switch (quality) {
    case lk::EXCELLENT:
      return room::Quality::kExcellent;
    case lk::GOOD:
      return room::Quality::kGood;
    case lk::POOR:
      return room::Quality::kPoor;
    default:
      return room::Quality::kLost;
  }
}

// What makes `before` into `now`: "" deletes.
room::Attributes Difference(const room::Attributes& before, const room::Attributes& now) {
  room::Attributes change;
  for (const auto& [key, value] : now) {
    const auto old = before.find(key);
    if (old == before.end() || old->second != value) change[key] = value;
  }
  for (const auto& [key, value] : before) {
    if (!now.contains(key)) change[key] = "";
  }
  return change;
}

room::Attributes AttributesOf(const lk::ParticipantInfo& info) {
  return {info.attributes().begin(), info.attributes().end()};
}

// Whom a packet is for; calls name one.
std::vector<std::string> Destinations(const room::Event& event) {
  if (const auto* data = std::get_if<room::DataPacket>(&event)) return data->destination_identities;
  if (const auto* text = std::get_if<room::TextPacket>(&event)) return text->destination_identities;
  if (const auto* bytes = std::get_if<room::BytePacket>(&event)) {
    return bytes->destination_identities;
  }
  if (const auto* call = std::get_if<room::RpcPacket>(&event)) return {call->destination_identity};
  return {};
}

template <typename... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ConnectorParts>> ConnectorParts::Start() {
  PARLEY_ASSIGN_OR_RETURN(auto sockets, http::WebSocketClient::Start());
  PARLEY_ASSIGN_OR_RETURN(auto engine, webrtc::ClientEngine::Start());
  return std::unique_ptr<ConnectorParts>(new ConnectorParts(std::move(sockets), std::move(engine)));
}

// Sees and hears the agent. Events go to the loop, frames straight out.
class Connector::WatcherSink final : public room::ParticipantSink {
 public:
  explicit WatcherSink(std::weak_ptr<Connector> connector) : connector_(std::move(connector)) {}
  void OnJoined(const room::Joined& joined) override {
    if (const auto connector = connector_.lock()) {
      connector->Post([self = connector.get(), joined] { self->OnRoomJoined(joined); });
    }
  }
  void OnEvent(const room::Event& event) override {
    if (std::holds_alternative<room::SpeakersChanged>(event) ||
        std::holds_alternative<room::QualityChanged>(event)) {
      return;
    }
    if (const auto connector = connector_.lock()) {
      connector->Post([self = connector.get(), event] { self->OnRoomEvent(event); });
    }
  }
  void OnFrame(uint32_t track_number, const room::Frame& frame) override {
    const auto connector = connector_.lock();
    if (connector == nullptr || track_number >= kMaxHeard) return;
    const uint32_t number = connector->outgoing_[track_number].load();
    std::shared_ptr<signalling::ExternalRoom> external;
    {
      MutexLock lock(&connector->external_mutex_);
      external = connector->audio_;
    }
    if (number == 0 || external == nullptr) return;
    const bool sent = external->SendAudio(number, frame.timestamp, frame.level, frame.data);
    RoomServerMetrics& metrics = connector->host_->metrics();
    (sent ? metrics.frames_out : metrics.frames_late).Increment();
  }

 private:
  const std::weak_ptr<Connector> connector_;
};

// The seat of somebody of the external room: what the agent says to them alone.
class Connector::SeatSink final : public room::ParticipantSink {
 public:
  SeatSink(std::weak_ptr<Connector> connector, std::string identity)
      : connector_(std::move(connector)), identity_(std::move(identity)) {}
  void OnJoined(const room::Joined&) override {}
  void OnEvent(const room::Event& event) override {
    if (Destinations(event).empty()) return;  // the watcher hears it
    const auto connector = connector_.lock();
    if (connector == nullptr) return;
    connector->Post([self = connector.get(), identity = identity_, event] {
      const auto seat = self->seats_.find(identity);
      if (seat != self->seats_.end()) self->SendOut(event, identity, seat->second->out);
    });
  }
  void OnFrame(uint32_t, const room::Frame&) override {}

 private:
  const std::weak_ptr<Connector> connector_;
  const std::string identity_;
};

Connector::Connector(std::shared_ptr<Host> host, Connectors& connectors,
                     std::shared_ptr<room::Room> room)
    : host_(std::move(host)),
      connectors_(connectors),
      room_(std::move(room)),
      loop_(connectors.parts().engine->loop()) {}

Connector::~Connector() = default;

void Connector::Post(std::function<void()> work) {
  if (waiting_.fetch_add(1) >= kMaxWaiting) {
    waiting_.fetch_sub(1);
    return;  // the connection is far behind; what is lost here is lost as on a broken line
  }
  loop_.Post([self = shared_from_this(), work = std::move(work)] {
    self->waiting_.fetch_sub(1);
    if (!self->over_) work();
  });
}

void Connector::Start(std::string url, std::string token) {
  Post([this, url = std::move(url), token = std::move(token)] { Begin(url, token); });
}

void Connector::Begin(const std::string& url, const std::string& token) {
  token_ = token;
  alone_since_us_ = loop_.NowMicros();
  timer_ = std::make_unique<event::Timer>(loop_);
  timer_->StartRepeating(kTick, [this] { CheckAbandoned(); });
  room::JoinRequest join;
  join.identity = "connector-" + room_->sid();
  join.kind = room::Kind::kRecorder;
  join.permission.hidden = true;
  join.auto_subscribe = false;
  auto watcher = room_->Join(join, std::make_shared<WatcherSink>(weak_from_this()));
  if (!watcher.ok()) return End(watcher.status());
  watcher_ = *std::move(watcher);
  room_->ExpectAgents(1);  // that of the job which this room is for
  external_ =
      signalling::ExternalRoom::Join(*connectors_.parts().engine, *connectors_.parts().sockets,
                                     {.url = url, .token = token}, weak_from_this());
  MutexLock lock(&external_mutex_);
  audio_ = external_;
}

void Connector::Own(uint64_t owner, Tell tell) {
  loop_.Post([self = shared_from_this(), this, owner, tell = std::move(tell)] {
    room::v1::MirrorResponse response;
    if (over_) {
      response.mutable_ended()->set_code(static_cast<int>(absl::StatusCode::kUnavailable));
      return tell(response);
    }
    owner_ = owner;
    tell_ = tell;
    response.mutable_opened();
    Say(response);
    if (!own_sid_.empty()) {
      response.mutable_joined()->set_participant_sid(own_sid_);
      Say(response);
    }
    response.set_token(token_);
    Say(response);
    SayAgent();
  });
}

void Connector::Disown(uint64_t owner) {
  Post([this, owner] {
    if (owner_ != owner) return;
    owner_ = 0;
    tell_ = nullptr;
  });
}

void Connector::Stop() {
  Post([this] { End(absl::OkStatus()); });
}

void Connector::CheckAbandoned() {
  const int64_t now_us = loop_.NowMicros();
  if (owner_ != 0 || !agent_sid_.empty()) {
    alone_since_us_ = now_us;
  } else if (now_us - alone_since_us_ > kAbandonedUs) {
    // The loop's timer may not go in its own call.
    Post([this] { End(Unavailable("nobody wanted it any more")); });
  }
}

void Connector::End(const absl::Status& status) {
  if (std::exchange(over_, true)) return;
  const auto keep = shared_from_this();
  {
    MutexLock lock(&external_mutex_);
    audio_ = nullptr;
  }
  if (external_ != nullptr) external_->Leave();
  external_ = nullptr;
  timer_.reset();
  room::v1::MirrorResponse response;
  response.mutable_ended()->set_code(static_cast<int>(status.code()));
  response.mutable_ended()->set_message(std::string(Message(status)));
  Say(response);
  tell_ = nullptr;
  heard_.clear();
  seats_.clear();
  watcher_ = nullptr;
  connectors_.Forget(*this);
  // The room goes, and with it whoever is in it: the directory blocks.
  (void)host_->control().Post(
      [host = host_, room = room_] { (void)host->Delete(room->project(), room->name()); });
}

void Connector::Say(const room::v1::MirrorResponse& response) {
  if (tell_) tell_(response);
}

void Connector::SayAgent() {
  room::v1::MirrorResponse response;
  response.mutable_agent()->set_present(!agent_sid_.empty());
  Say(response);
}

// ---- the external room says ----

void Connector::OnJoined(const lk::JoinResponse& joined) {
  own_identity_ = joined.participant().identity();
  own_sid_ = joined.participant().sid();
  for (auto& [number, own] : own_) own.sid.clear();
  tags_.clear();
  if (!joined.room().metadata().empty()) {
    (void)room_->UpdateMetadata(joined.room().metadata());
  }
  std::vector<std::string> gone;
  for (const auto& [identity, seat] : seats_) {
    if (std::ranges::none_of(joined.other_participants(), [&](const auto& other) {
          return other.identity() == identity && other.sid() == seat->sid;
        })) {
      gone.push_back(identity);
    }
  }
  for (const std::string& identity : gone) Unseat(identity, room::LeaveReason::kConnectionLost);
  for (const lk::ParticipantInfo& other : joined.other_participants()) OnParticipant(other);
  ConnectTags();
  room::v1::MirrorResponse response;
  response.mutable_joined()->set_participant_sid(own_sid_);
  Say(response);
}

void Connector::OnParticipant(const lk::ParticipantInfo& info) {
  if (info.sid() == own_sid_ || info.identity() == own_identity_) return;
  const auto found = seats_.find(info.identity());
  if (info.state() == lk::ParticipantInfo::DISCONNECTED) {
    if (found != seats_.end() && found->second->sid == info.sid()) {
      Unseat(info.identity(), ReasonOf(info.disconnect_reason()));
    }
    return;
  }
  if (found != seats_.end() && found->second->sid != info.sid()) {
    Unseat(info.identity(), room::LeaveReason::kDuplicateIdentity);
  }
  if (!seats_.contains(info.identity())) AddSeat(info);
  const auto seat = seats_.find(info.identity());
  if (seat == seats_.end()) return;
  UpdateSeat(*seat->second, info);
  UpdateTracks(*seat->second, info);
}

void Connector::AddSeat(const lk::ParticipantInfo& info) {
  if (info.identity().empty()) return;
  if (info.identity() == agent_identity_) {
    return host_->context().log().Warn("somebody of an external room is named like its agent here",
                                       {{"room", room_->name()}});
  }
  room::JoinRequest join;
  join.identity = info.identity();
  join.name = info.name();
  join.metadata = info.metadata();
  join.attributes = AttributesOf(info);
  join.kind = KindOf(info.kind());
  join.auto_subscribe = false;
  auto participant =
      room_->Join(join, std::make_shared<SeatSink>(weak_from_this(), info.identity()));
  if (!participant.ok()) {
    return host_->context().log().Warn(
        "somebody of an external room got no seat",
        {{"room", room_->name()}, {"error", std::string(Message(participant.status()))}});
  }
  auto seat = std::make_unique<Seat>();
  seat->sid = info.sid();
  seat->info = info;
  seat->participant = *std::move(participant);
  seats_[info.identity()] = std::move(seat);
}

void Connector::Unseat(const std::string& identity, room::LeaveReason reason) {
  const auto found = seats_.find(identity);
  if (found == seats_.end()) return;
  const std::unique_ptr<Seat> seat = std::move(found->second);
  seats_.erase(found);
  ConnectTags();
  seat->participant->Leave(reason, "left the external room");
}

void Connector::UpdateSeat(Seat& seat, const lk::ParticipantInfo& info) {
  room::ParticipantChange change;
  if (info.name() != seat.info.name()) change.name = info.name();
  if (info.metadata() != seat.info.metadata()) change.metadata = info.metadata();
  change.attributes = Difference(AttributesOf(seat.info), AttributesOf(info));
  seat.info = info;
  if (!change.name && !change.metadata && change.attributes.empty()) return;
  (void)room_->UpdateParticipant(info.identity(), change);
}

void Connector::UpdateTracks(Seat& seat, const lk::ParticipantInfo& info) {
  std::vector<std::string> gone;
  for (const auto& [sid, remote] : seat.tracks) {
    if (std::ranges::none_of(info.tracks(), [&](const auto& t) { return t.sid() == sid; })) {
      gone.push_back(sid);
    }
  }
  for (const std::string& sid : gone) {
    (void)seat.participant->Unpublish(seat.tracks.at(sid).local_sid);
    seat.tracks.erase(sid);
  }
  bool changed = !gone.empty();
  for (const lk::TrackInfo& track : info.tracks()) {
    if (track.type() != lk::AUDIO) continue;
    auto known = seat.tracks.find(track.sid());
    if (known == seat.tracks.end()) {
      room::PublishRequest publish;
      publish.name = track.name();
      publish.source = FromLiveKit(track.source());
      const auto published = seat.participant->Publish(publish);
      if (!published.ok()) continue;
      const auto index = seat.participant->TrackIndex(published->sid);
      if (!index) continue;
      known = seat.tracks.emplace(track.sid(), Remote{*index, published->sid, false}).first;
      changed = true;
    }
    if (known->second.muted == track.muted()) continue;
    known->second.muted = track.muted();
    (void)seat.participant->SetMuted(known->second.local_sid, track.muted());
  }
  if (changed) ConnectTags();
}

// Which seat's track each tag is.
void Connector::ConnectTags() {
  heard_.assign(heard_.size(), Heard());
  for (const auto& [tag, sid] : tags_) {
    for (const auto& [identity, seat] : seats_) {
      const auto track = seat->tracks.find(sid);
      if (track == seat->tracks.end()) continue;
      if (heard_.size() <= tag) heard_.resize(tag + 1);
      heard_[tag] = {seat->participant.get(), track->second.index};
    }
  }
}

void Connector::OnTrack(uint32_t tag, const std::string& track_sid) {
  if (tag >= kMaxTags) return;
  tags_[tag] = track_sid;
  ConnectTags();
}

void Connector::OnAudio(uint32_t tag, const webrtc::AudioPacket& packet) {
  if (tag >= heard_.size() || heard_[tag].participant == nullptr) return;
  host_->metrics().frames_in.Increment();
  (void)heard_[tag].participant->SendFrame(heard_[tag].index,
                                           {packet.timestamp, packet.level, packet.payload});
}

void Connector::OnRoom(const lk::Room& room) { (void)room_->UpdateMetadata(room.metadata()); }

void Connector::OnQuality(const lk::ConnectionQualityInfo& quality) {
  for (const auto& [identity, seat] : seats_) {
    if (seat->sid == quality.participant_sid()) {
      seat->participant->SetQuality(QualityOf(quality.quality()), quality.score());
    }
  }
}

void Connector::OnPublished(const std::string& cid, const std::string& track_sid) {
  for (auto& [number, own] : own_) {
    if (own.local_sid == cid) own.sid = track_sid;
  }
}

// The agent's audio goes out from the first moment that somebody hears it: it waits for that.
void Connector::OnTrackHeard(const std::string& track_sid) {
  for (const auto& [number, own] : own_) {
    if (own.sid == track_sid) (void)watcher_->SetSubscribed(own.local_sid, true);
  }
}

void Connector::OnMuted(const std::string& track_sid, bool muted) {
  for (const auto& [number, own] : own_) {
    if (own.sid == track_sid && !agent_identity_.empty()) {
      (void)room_->MuteTrack(agent_identity_, own.local_sid, muted);
    }
  }
}

void Connector::OnPacket(const lk::DataPacket& packet, bool reliable) {
  if (agent_identity_.empty()) return;
  const auto found = seats_.find(packet.participant_identity());
  if (packet.has_user()) {
    room::DataPacket data;
    data.payload = packet.user().payload();
    data.topic = packet.user().topic();
    data.reliable = reliable;
    data.destination_identities = {agent_identity_};
    // Without a sender it is the server's.
    return (void)(found != seats_.end() ? found->second->participant->SendData(std::move(data))
                                        : room_->SendData(std::move(data)));
  }
  if (found == seats_.end()) return;
  Seat& seat = *found->second;
  if (auto call = RpcFromClient(packet)) {
    call->destination_identity = agent_identity_;
    return (void)seat.participant->SendRpc(*std::move(call));
  }
  if (auto key = KeyFromClient(packet)) {
    key->destination_identities = {agent_identity_};
    return (void)seat.participant->SendData(*std::move(key));
  }
  auto piece = seat.in.FromClient(packet);
  if (!piece) return;
  std::visit([&](auto& any) { any.destination_identities = {agent_identity_}; }, *piece);
  if (auto* text = std::get_if<room::TextPacket>(&*piece)) {
    return (void)seat.participant->SendText(std::move(*text));
  }
  (void)seat.participant->SendBytes(std::get<room::BytePacket>(*std::move(piece)));
}

void Connector::OnToken(const std::string& token) {
  token_ = token;
  room::v1::MirrorResponse response;
  response.set_token(token);
  Say(response);
}

void Connector::OnClosed(const absl::Status& status, lk::DisconnectReason reason) {
  host_->context().log().Info("an external room is over for its agent",
                              {{"room", room_->name()},
                               {"reason", lk::DisconnectReason_Name(reason)},
                               {"error", std::string(Message(status))}});
  End(status);
}

// ---- the local room says ----

void Connector::OnRoomJoined(const room::Joined& joined) {
  for (const room::ParticipantInfo& other : joined.others) {
    if (!other.job_id.empty()) OnAgent(other);
  }
}

void Connector::OnRoomEvent(const room::Event& event) {
  std::visit(Overloaded{
                 [&](const room::ParticipantJoined& e) {
                   if (!e.participant.job_id.empty()) OnAgent(e.participant);
                 },
                 [&](const room::ParticipantUpdated& e) {
                   if (e.participant.sid == agent_sid_) OnAgentChanged(e.participant);
                 },
                 [&](const room::ParticipantLeft& e) {
                   if (e.sid == agent_sid_) OnAgentLeft();
                 },
                 [&](const room::TrackPublished& e) {
                   if (e.participant_identity == agent_identity_) OnAgentTrack(e.track);
                 },
                 [&](const room::TrackUnpublished& e) { OnAgentTrackGone(e.track_sid); },
                 [&](const room::TrackMuted& e) {
                   for (const auto& [number, own] : own_) {
                     if (own.local_sid == e.track_sid) external_->SetMuted(number, e.muted);
                   }
                 },
                 [&](const room::SubscriptionStarted& e) {
                   for (const auto& [number, own] : own_) {
                     if (own.local_sid == e.track.sid && e.track_number < kMaxHeard) {
                       outgoing_[e.track_number] = number;
                     }
                   }
                 },
                 [&](const room::DataPacket&) { SendOut(event, {}, out_); },
                 [&](const room::TextPacket&) { SendOut(event, {}, out_); },
                 [&](const room::BytePacket&) { SendOut(event, {}, out_); },
                 [&](const room::Disconnected&) { End(absl::OkStatus()); },
                 [](const auto&) {},
             },
             event);
}

void Connector::OnAgent(const room::ParticipantInfo& agent) {
  if (!agent_sid_.empty() && agent_sid_ != agent.sid) OnAgentLeft();
  agent_identity_ = agent.identity;
  agent_sid_ = agent.sid;
  OnAgentChanged(agent);
  for (const room::Track& track : agent.tracks) OnAgentTrack(track);
  SayAgent();
}

void Connector::OnAgentChanged(const room::ParticipantInfo& agent) {
  lk::UpdateParticipantMetadata change;
  if (agent.name != agent_.name) change.set_name(agent.name);
  if (agent.metadata != agent_.metadata) change.set_metadata(agent.metadata);
  for (const auto& [key, value] : Difference(agent_.attributes, agent.attributes)) {
    (*change.mutable_attributes())[key] = value;
  }
  agent_ = agent;
  if (change.name().empty() && change.metadata().empty() && change.attributes().empty()) return;
  external_->UpdateSelf(change);
}

void Connector::OnAgentLeft() {
  for (const auto& [number, own] : std::exchange(own_, {})) external_->Unpublish(number);
  for (auto& number : outgoing_) number = 0;
  agent_identity_.clear();
  agent_sid_.clear();
  SayAgent();
}

void Connector::OnAgentTrack(const room::Track& track) {
  if (track.kind != room::TrackKind::kAudio ||
      own_.size() >= signalling::ExternalRoom::kMaxTracks) {
    return;
  }
  if (track.codec != room::Codec::kOpus) {
    return host_->context().log().Warn("only Opus goes to an external room",
                                       {{"room", room_->name()}});
  }
  if (std::ranges::any_of(own_, [&](const auto& e) { return e.second.local_sid == track.sid; })) {
    return;
  }
  const uint32_t number = ++last_own_;
  own_[number].local_sid = track.sid;
  external_->Publish(number, track.sid, track.name,
                     static_cast<lk::TrackSource>(ToLiveKit(track).source()));
  if (track.muted) external_->SetMuted(number, true);
}

void Connector::OnAgentTrackGone(const std::string& local_sid) {
  const auto found = std::ranges::find_if(
      own_, [&](const auto& entry) { return entry.second.local_sid == local_sid; });
  if (found == own_.end()) return;
  external_->Unpublish(found->first);
  own_.erase(found);
}

std::string Connector::OutIdentity(const std::string& identity) const {
  return identity.empty() || identity == agent_identity_ ? own_identity_ : identity;
}

void Connector::TranslateTracks(google::protobuf::Map<std::string, std::string>* attributes) const {
  const auto named = attributes->find(kTranscribedTrack);
  if (named == attributes->end()) return;
  for (const auto& [number, own] : own_) {
    if (own.local_sid == named->second) named->second = own.sid;
  }
  for (const auto& [identity, seat] : seats_) {
    for (const auto& [sid, remote] : seat->tracks) {
      if (remote.local_sid == named->second) named->second = sid;
    }
  }
}

void Connector::SendOut(const room::Event& event, const std::string& to, DataStreams& streams) {
  if (external_ == nullptr) return;
  const auto send = [&](lk::DataPacket packet, bool reliable) {
    packet.set_participant_identity(OutIdentity(packet.participant_identity()));
    if (!to.empty()) packet.add_destination_identities(to);
    if (packet.has_stream_header()) {
      TranslateTracks(packet.mutable_stream_header()->mutable_attributes());
    } else if (packet.has_stream_trailer()) {
      TranslateTracks(packet.mutable_stream_trailer()->mutable_attributes());
    }
    external_->SendPacket(std::move(packet), reliable);
  };
  if (const auto* data = std::get_if<room::DataPacket>(&event)) {
    if (auto key = KeyToClient(*data)) return send(*std::move(key), true);
    lk::DataPacket packet;
    packet.set_participant_identity(data->from_identity);
    lk::UserPacket& user = *packet.mutable_user();
    user.set_payload(data->payload);
    if (!data->topic.empty()) user.set_topic(data->topic);
    if (!to.empty()) user.add_destination_identities(to);
    send(std::move(packet), data->reliable);
  } else if (const auto* text = std::get_if<room::TextPacket>(&event)) {
    for (auto& packet : streams.ToClient(*text, absl::Now())) send(std::move(packet), true);
  } else if (const auto* bytes = std::get_if<room::BytePacket>(&event)) {
    for (auto& packet : streams.ToClient(*bytes, absl::Now())) send(std::move(packet), true);
  } else if (const auto* call = std::get_if<room::RpcPacket>(&event)) {
    send(ToClient(*call), true);
  }
}

}  // namespace parley::room_server
