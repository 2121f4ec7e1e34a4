#include "signalling/external_room.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "http/client.h"

namespace parley::signalling {
namespace {

// LiveKit's protocol: 13 has LeaveRequest.action, 15 answers every update_metadata.
constexpr auto kQuery = "auto_subscribe=1&adaptive_stream=0&sdk=cpp&version=1.0.0&protocol=15";
constexpr auto kReliable = "_reliable";
constexpr auto kLossy = "_lossy";
constexpr absl::Duration kTick = absl::Milliseconds(100);
constexpr int64_t kGreetUs = 10'000'000;  // how long the first message may take
constexpr int64_t kFirstPingUs = 5'000'000;
constexpr int64_t kFirstSilenceUs = 15'000'000;
constexpr int kResumptions = 3;  // then the seat is taken anew
constexpr int64_t kRetryUs = 500'000;
constexpr int64_t kRetryMaxUs = 5'000'000;
constexpr int64_t kHealUs = 1'000'000;  // two paths that break together are one event
constexpr int kMaxWaiting = 4096;       // messages on their way to the loop
constexpr size_t kMaxTags = 4096;
constexpr int kClose = 1000;

bool IsLoopback(const std::string& url) {
  const auto parsed = http::ParseWebSocketUrl(url);
  return parsed.ok() &&
         (parsed->host == "localhost" || parsed->host == "::1" || parsed->host.starts_with("127."));
}

}  // namespace

std::string ReadCandidate(std::string_view candidate_init) {
  const auto json = nlohmann::json::parse(candidate_init, nullptr, false);
  if (!json.is_object()) return {};
  const auto found = json.find("candidate");
  if (found == json.end() || !found->is_string()) return {};
  std::string line = found->get<std::string>();
  const bool one_line = line.find_first_of("\r\n") == std::string::npos;
  return line.starts_with("candidate:") && one_line ? line : std::string();
}

std::string WriteCandidate(std::string_view line) {
  return nlohmann::json{{"candidate", std::string(line)}, {"sdpMid", "0"}, {"sdpMLineIndex", 0}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// One WebSocket: brings what it says to the loop.
class ExternalRoom::Wire final : public http::DialListener {
 public:
  Wire(event::Loop& loop, std::weak_ptr<ExternalRoom> room, uint64_t number)
      : loop_(loop), room_(std::move(room)), number_(number) {}
  void OnOpen() override {}
  void OnMessage(http::WebSocketMessage message) override {
    if (waiting_->fetch_add(1) >= kMaxWaiting) {
      waiting_->fetch_sub(1);
      return OnClosed(Unavailable("the server says more than is taken"));
    }
    Later([waiting = waiting_, number = number_, message = std::move(message)](ExternalRoom& room) {
      waiting->fetch_sub(1);
      room.OnMessage(number, message);
    });
  }
  void OnClosed(const absl::Status& why) override {
    Later([number = number_, why](ExternalRoom& room) { room.OnWireClosed(number, why); });
  }

 private:
  template <typename Work>
  void Later(Work work) {
    loop_.Post([room = room_, work = std::move(work)] {
      if (const auto alive = room.lock()) work(*alive);
    });
  }
  event::Loop& loop_;
  const std::weak_ptr<ExternalRoom> room_;
  const uint64_t number_;
  const std::shared_ptr<std::atomic<int>> waiting_ = std::make_shared<std::atomic<int>>(0);
};

// What a peer connection says. On the loop.
class ExternalRoom::Media final : public webrtc::ClientObserver {
 public:
  Media(std::weak_ptr<ExternalRoom> room, bool subscriber)
      : room_(std::move(room)), subscriber_(subscriber) {}
  void OnConnected() override {}
  void OnAudio(uint32_t tag, const webrtc::AudioPacket& packet) override {
    const auto room = room_.lock();
    const auto observer = room == nullptr ? nullptr : room->observer_.lock();
    if (observer != nullptr) observer->OnAudio(tag, packet);
  }
  void OnChannelOpen(std::string_view) override {}
  void OnData(std::string_view label, webrtc::Bytes message) override {
    if (const auto room = room_.lock()) room->OnData(label, message);
  }
  void OnLink(const webrtc::LinkFigures&) override {}
  void OnClosed(std::string_view why) override {
    if (const auto room = room_.lock()) room->OnPeerLost(why);
  }
  void OnCandidate(const std::string& line) override {
    if (const auto room = room_.lock()) room->SendCandidate(subscriber_, line);
  }
  void OnPathLost() override {
    if (const auto room = room_.lock()) room->OnPeerLost("no path is left");
  }

 private:
  const std::weak_ptr<ExternalRoom> room_;
  const bool subscriber_;
};

std::shared_ptr<ExternalRoom> ExternalRoom::Join(webrtc::ClientEngine& engine,
                                                 http::WebSocketClient& sockets,
                                                 ExternalRoomOptions options,
                                                 std::weak_ptr<ExternalRoomObserver> observer) {
  std::shared_ptr<ExternalRoom> room(
      new ExternalRoom(engine, sockets, std::move(options), std::move(observer)));
  room->Start();
  return room;
}

ExternalRoom::ExternalRoom(webrtc::ClientEngine& engine, http::WebSocketClient& sockets,
                           ExternalRoomOptions options,
                           std::weak_ptr<ExternalRoomObserver> observer)
    : engine_(engine),
      sockets_(sockets),
      options_(std::move(options)),
      observer_(std::move(observer)),
      token_(options_.token),
      timer_(engine.loop()) {}

ExternalRoom::~ExternalRoom() {
  if (socket_ != nullptr) socket_->Close(kClose);
}

void ExternalRoom::Start() {
  away_since_us_ = engine_.loop().NowMicros();
  timer_.StartRepeating(kTick, [this] {
    const auto keep = shared_from_this();  // the observer may let go of us
    Tick();
  });
  Connect();
}

void ExternalRoom::Connect() {
  ++wire_;
  ++attempts_;
  greeted_ = false;
  dialled_us_ = heard_us_ = engine_.loop().NowMicros();
  http::Dial dial;
  const size_t end = options_.url.find_last_not_of('/');
  dial.url = options_.url.substr(0, end == std::string::npos ? 0 : end + 1) + "/rtc?" + kQuery;
  if (phase_ == Phase::kResuming) {
    dial.url += "&reconnect=1&sid=" + http::UrlEncode(own_sid_);
  }
  dial.headers = {{"authorization", "Bearer " + token_}};
  socket_ = sockets_.Open(std::move(dial),
                          std::make_shared<Wire>(engine_.loop(), weak_from_this(), wire_));
}

void ExternalRoom::OnMessage(uint64_t wire, const http::WebSocketMessage& message) {
  if (wire != wire_ || phase_ == Phase::kOver) return;
  lk::SignalResponse response;
  if (message.text || !response.ParseFromString(message.data)) {
    return Lost(Unavailable("the server's message is malformed"));
  }
  heard_us_ = engine_.loop().NowMicros();
  Do(response);
}

void ExternalRoom::OnWireClosed(uint64_t wire, const absl::Status& why) {
  if (wire != wire_ || phase_ == Phase::kOver) return;
  if (!joined_once_ && (why.code() == absl::StatusCode::kUnauthenticated ||
                        why.code() == absl::StatusCode::kInvalidArgument)) {
    return End(why, lk::JOIN_FAILURE);
  }
  Lost(why.ok() ? Unavailable("the server closed the connection") : why);
}

void ExternalRoom::Lost(const absl::Status& why) {
  const int64_t now_us = engine_.loop().NowMicros();
  if (socket_ != nullptr) socket_->Close(kClose);
  socket_ = nullptr;
  ++wire_;
  if (away_since_us_ == 0) away_since_us_ = now_us;
  if (GaveUp(why)) return;
  if (phase_ == Phase::kJoined) {
    phase_ = Phase::kResuming;
    attempts_ = 0;
  } else if (phase_ == Phase::kResuming && attempts_ >= kResumptions) {
    return Rejoin();
  }
  next_attempt_us_ = now_us + (attempts_ == 0 ? 0 : std::min(attempts_ * kRetryUs, kRetryMaxUs));
}

bool ExternalRoom::GaveUp(const absl::Status& why) {
  const int64_t away_us = engine_.loop().NowMicros() - away_since_us_;
  if (away_us <= absl::ToInt64Microseconds(options_.give_up)) return false;
  End(Annotate(why, "gave up"), lk::SIGNAL_CLOSE);
  return true;
}

void ExternalRoom::Rejoin() {
  if (socket_ != nullptr) socket_->Close(kClose);
  socket_ = nullptr;
  ++wire_;
  ClosePeers();
  phase_ = Phase::kJoining;
  if (away_since_us_ == 0) away_since_us_ = engine_.loop().NowMicros();
  if (GaveUp(Unavailable("the server lets nobody in"))) return;
  next_attempt_us_ = engine_.loop().NowMicros() + std::min(attempts_ * kRetryUs, kRetryMaxUs);
}

void ExternalRoom::End(const absl::Status& status, lk::DisconnectReason reason) {
  if (phase_ == Phase::kOver) return;
  Leave();
  if (const auto observer = observer_.lock()) observer->OnClosed(status, reason);
}

void ExternalRoom::Leave() {
  if (phase_ == Phase::kJoined) {
    lk::SignalRequest request;
    request.mutable_leave()->set_reason(lk::CLIENT_INITIATED);
    Send(request);
  }
  phase_ = Phase::kOver;
  timer_.Stop();
  ++wire_;
  if (socket_ != nullptr) socket_->Close(kClose);
  socket_ = nullptr;
  ClosePeers();
}

void ExternalRoom::Tick() {
  const int64_t now_us = engine_.loop().NowMicros();
  if (phase_ == Phase::kOver) return;
  if (socket_ == nullptr) {
    if (now_us >= next_attempt_us_) Connect();
    return;
  }
  if (!greeted_) {
    if (now_us - dialled_us_ > kGreetUs) Lost(Unavailable("the server does not answer"));
    return;
  }
  if (now_us - heard_us_ > ping_timeout_us_) {
    return Lost(Unavailable("nothing was heard of the server any more"));
  }
  if (heal_after_us_ != 0 && now_us >= heal_after_us_) {
    heal_after_us_ = 0;
    return Lost(Unavailable("a path was lost"));  // to come back begins ICE anew
  }
  if (now_us < next_ping_us_) return;
  next_ping_us_ = now_us + ping_every_us_;
  lk::SignalRequest request;
  request.mutable_ping_req()->set_timestamp(absl::ToUnixMillis(absl::Now()));
  Send(request);
}

void ExternalRoom::Do(const lk::SignalResponse& response) {
  if (!std::exchange(greeted_, true)) {
    if (response.has_join()) return OnJoin(response.join());
    if (response.has_reconnect() && phase_ == Phase::kResuming) return OnResumed();
    if (response.has_leave()) return OnLeave(response.leave());
    return Lost(Unavailable("the server's first message is unknown"));
  }
  const auto observer = observer_.lock();
  if (observer == nullptr) return Leave();
  switch (response.message_case()) {
    case lk::SignalResponse::kAnswer:
      return OnAnswer(response.answer());
    case lk::SignalResponse::kOffer:
      return OnOffer(response.offer());
    case lk::SignalResponse::kTrickle:
      return OnTrickle(response.trickle());
    case lk::SignalResponse::kUpdate:
      for (const auto& participant : response.update().participants()) {
        observer->OnParticipant(participant);
      }
      return;
    case lk::SignalResponse::kTrackPublished:
      return OnTrackPublished(response.track_published());
    case lk::SignalResponse::kTrackSubscribed:
      return observer->OnTrackHeard(response.track_subscribed().track_sid());
    case lk::SignalResponse::kMute:
      return observer->OnMuted(response.mute().sid(), response.mute().muted());
    case lk::SignalResponse::kRoomUpdate:
      return observer->OnRoom(response.room_update().room());
    case lk::SignalResponse::kConnectionQuality:
      for (const auto& quality : response.connection_quality().updates()) {
        observer->OnQuality(quality);
      }
      return;
    case lk::SignalResponse::kRefreshToken:
      token_ = response.refresh_token();
      return observer->OnToken(token_);
    case lk::SignalResponse::kLeave:
      return OnLeave(response.leave());
    default:
      return;  // pongs, answers to updates, what is for browsers
  }
}

void ExternalRoom::OnJoin(const lk::JoinResponse& join) {
  const auto observer = observer_.lock();
  if (observer == nullptr) return Leave();
  ClosePeers();
  if (const absl::Status status = OpenUp(); !status.ok()) {
    return End(Unavailable("{}", Message(status)), lk::JOIN_FAILURE);
  }
  phase_ = Phase::kJoined;
  joined_once_ = true;
  attempts_ = 0;
  away_since_us_ = 0;
  own_sid_ = join.participant().sid();
  ping_every_us_ = join.ping_interval() > 0 ? join.ping_interval() * 1'000'000LL : kFirstPingUs;
  ping_timeout_us_ = join.ping_timeout() > 0 ? join.ping_timeout() * 1'000'000LL : kFirstSilenceUs;
  next_ping_us_ = engine_.loop().NowMicros() + ping_every_us_;
  tags_.clear();
  last_sequence_ = 0;
  observer->OnJoined(join);
  if (phase_ != Phase::kJoined) return;
  for (auto& [number, published] : published_) {
    published.sid.clear();
    AskToPublish(published);
  }
  if (!self_.metadata().empty() || !self_.name().empty() || !self_.attributes().empty()) {
    lk::SignalRequest request;
    *request.mutable_update_metadata() = self_;
    request.mutable_update_metadata()->set_request_id(++last_request_);
    Send(request);
  }
  MakeOffer();  // data channels, at least
}

void ExternalRoom::OnResumed() {
  phase_ = Phase::kJoined;
  attempts_ = 0;
  away_since_us_ = 0;
  heal_after_us_ = 0;
  lk::SignalRequest request;
  lk::SyncState& state = *request.mutable_sync_state();
  *state.mutable_answer() = last_answer_;
  *state.mutable_offer() = last_offer_;
  state.mutable_subscription()->set_subscribe(true);
  for (const auto& [number, published] : published_) {
    if (published.sid.empty()) continue;
    lk::TrackPublishedResponse& track = *state.add_publish_tracks();
    track.set_cid(published.cid);
    track.mutable_track()->set_sid(published.sid);
  }
  Send(request);
  up_->RestartIce();
  offering_->RestartIce(up_->credentials());
  MakeOffer();
}

void ExternalRoom::OnLeave(const lk::LeaveRequest& leave) {
  switch (leave.action()) {
    case lk::LeaveRequest::RESUME:
      return Lost(Unavailable("the server asks to come back"));
    case lk::LeaveRequest::RECONNECT:
      return Rejoin();
    default:
      return End(absl::OkStatus(), leave.reason());
  }
}

absl::Status ExternalRoom::OpenUp() {
  webrtc::ClientEngine::Options options;
  options.loopback = IsLoopback(options_.url);
  PARLEY_ASSIGN_OR_RETURN(up_,
                          engine_.Open(options, std::make_shared<Media>(weak_from_this(), false)));
  offering_ = std::make_unique<webrtc::Offering>(
      engine_.fingerprint(), up_->credentials(),
      std::vector<webrtc::ChannelPlan>{{kReliable, true, std::nullopt}, {kLossy, false, 0}});
  MutexLock lock(&audio_mutex_);
  audio_peer_ = up_;
  return absl::OkStatus();
}

// Once the server offers: who nominates is decided before ICE begins, and with ICE-lite it is we.
absl::Status ExternalRoom::OpenDown(bool server_has_ice_lite) {
  webrtc::ClientEngine::Options options;
  options.loopback = IsLoopback(options_.url);
  options.controlling = server_has_ice_lite;
  PARLEY_ASSIGN_OR_RETURN(down_,
                          engine_.Open(options, std::make_shared<Media>(weak_from_this(), true)));
  negotiation_ = std::make_unique<webrtc::Negotiation>(engine_.fingerprint(), down_->credentials());
  remote_ufrag_.clear();
  return absl::OkStatus();
}

void ExternalRoom::ClosePeers() {
  heal_after_us_ = 0;
  {
    MutexLock lock(&audio_mutex_);
    audio_peer_ = nullptr;
  }
  if (up_ != nullptr) up_->Close();
  if (down_ != nullptr) down_->Close();
  up_ = down_ = nullptr;
}

// ---- descriptions ----

void ExternalRoom::MakeOffer() {
  if (phase_ != Phase::kJoined || up_ == nullptr) return;
  const auto offer = offering_->Next();
  if (!offer) return;
  lk::SignalRequest request;
  request.mutable_offer()->set_type("offer");
  request.mutable_offer()->set_sdp(offer->sdp);
  request.mutable_offer()->set_id(offer->id);
  Send(request);
}

void ExternalRoom::OnAnswer(const lk::SessionDescription& answer) {
  const auto sdp = webrtc::ParseSdp(answer.sdp());
  if (!sdp.ok() || up_ == nullptr) return Lost(Unavailable("{}", Message(sdp.status())));
  auto plan = offering_->Accept(*sdp, answer.id());
  if (plan.status().code() == absl::StatusCode::kNotFound) return;  // of an earlier offer
  absl::Status status = plan.status();
  if (status.ok()) status = up_->SetRemote(*sdp);
  if (!status.ok()) return Rejoin();
  up_->Apply(*std::move(plan));
  MakeOffer();
}

void ExternalRoom::OnOffer(const lk::SessionDescription& offer) {
  const auto sdp = webrtc::ParseSdp(offer.sdp());
  if (!sdp.ok() || sdp->sections.empty()) return Rejoin();
  if (down_ == nullptr && !OpenDown(sdp->ice_lite).ok()) return Rejoin();
  const std::string& ufrag = sdp->sections.front().ice_ufrag;
  if (!remote_ufrag_.empty() && ufrag != remote_ufrag_) {
    down_->RestartIce();
    negotiation_->RestartIce(down_->credentials());
  }
  remote_ufrag_ = ufrag;
  auto answer = negotiation_->Accept(*sdp);
  if (!answer.ok() || !down_->SetRemote(*sdp).ok()) return Rejoin();
  const auto observer = observer_.lock();
  for (webrtc::ReceivePlan& receive : answer->plan.receive) {
    const auto mapped = offer.mid_to_track_id().find(receive.mid);
    const std::string& sid =
        mapped != offer.mid_to_track_id().end() ? mapped->second : receive.track_id;
    if (sid.empty()) continue;
    const auto known = tags_.find(sid);
    if (known == tags_.end() && tags_.size() >= kMaxTags) continue;
    receive.tag = known != tags_.end() ? known->second : (tags_[sid] = ++last_tag_);
    if (known == tags_.end() && observer != nullptr) observer->OnTrack(receive.tag, sid);
  }
  if (down_ == nullptr) return;
  down_->Apply(std::move(answer->plan));
  lk::SignalRequest request;
  request.mutable_answer()->set_type("answer");
  request.mutable_answer()->set_sdp(std::move(answer->sdp));
  request.mutable_answer()->set_id(offer.id());
  last_offer_ = offer;
  last_answer_ = request.answer();
  Send(request);
}

void ExternalRoom::OnTrickle(const lk::TrickleRequest& trickle) {
  const auto& peer = trickle.target() == lk::SUBSCRIBER ? down_ : up_;
  const std::string line = ReadCandidate(trickle.candidate_init());
  if (peer != nullptr && !line.empty()) peer->AddCandidate(line);
}

void ExternalRoom::SendCandidate(bool subscriber, const std::string& line) {
  lk::SignalRequest request;
  request.mutable_trickle()->set_candidate_init(WriteCandidate(line));
  request.mutable_trickle()->set_target(subscriber ? lk::SUBSCRIBER : lk::PUBLISHER);
  Send(request);
}

void ExternalRoom::OnPeerLost(std::string_view) {
  if (phase_ != Phase::kJoined || heal_after_us_ != 0) return;
  heal_after_us_ = engine_.loop().NowMicros() + kHealUs;
}

// ---- what is published ----

void ExternalRoom::Publish(uint32_t number, const std::string& cid, const std::string& name,
                           lk::TrackSource source) {
  if (published_.size() >= kMaxTracks || published_.contains(number)) return;
  Published& published = published_[number];
  published.cid = cid;
  published.name = name;
  published.source = source;
  if (phase_ == Phase::kJoined) AskToPublish(published);
}

void ExternalRoom::AskToPublish(const Published& published) {
  lk::SignalRequest request;
  lk::AddTrackRequest& track = *request.mutable_add_track();
  track.set_cid(published.cid);
  track.set_name(published.name);
  track.set_type(lk::AUDIO);
  track.set_source(published.source);
  track.set_muted(published.muted);
  Send(request);
}

void ExternalRoom::OnTrackPublished(const lk::TrackPublishedResponse& response) {
  const auto found = std::ranges::find_if(
      published_, [&](const auto& entry) { return entry.second.cid == response.cid(); });
  if (found == published_.end() || up_ == nullptr) return;
  const bool first = found->second.sid.empty();
  found->second.sid = response.track().sid();
  if (!first) return;
  // The server knows the track by its msid.
  offering_->AddTrack(found->first, found->second.cid, found->second.cid);
  MakeOffer();
  if (const auto observer = observer_.lock()) {
    observer->OnPublished(response.cid(), response.track().sid());
  }
}

void ExternalRoom::Unpublish(uint32_t number) {
  if (published_.erase(number) == 0 || up_ == nullptr) return;
  offering_->RemoveTrack(number);
  MakeOffer();
}

void ExternalRoom::SetMuted(uint32_t number, bool muted) {
  const auto found = published_.find(number);
  if (found == published_.end() || found->second.muted == muted) return;
  found->second.muted = muted;
  if (found->second.sid.empty()) return;
  lk::SignalRequest request;
  request.mutable_mute()->set_sid(found->second.sid);
  request.mutable_mute()->set_muted(muted);
  Send(request);
}

void ExternalRoom::UpdateSelf(const lk::UpdateParticipantMetadata& change) {
  if (!change.metadata().empty()) self_.set_metadata(change.metadata());
  if (!change.name().empty()) self_.set_name(change.name());
  for (const auto& [key, value] : change.attributes()) (*self_.mutable_attributes())[key] = value;
  if (phase_ != Phase::kJoined) return;
  lk::SignalRequest request;
  *request.mutable_update_metadata() = change;
  request.mutable_update_metadata()->set_request_id(++last_request_);
  Send(request);
}

bool ExternalRoom::SendAudio(uint32_t number, uint32_t timestamp, uint32_t level,
                             std::string_view payload) {
  std::shared_ptr<webrtc::ClientPeer> peer;
  {
    MutexLock lock(&audio_mutex_);
    peer = audio_peer_;
  }
  return peer != nullptr && peer->SendAudio(number, timestamp, level, payload);
}

void ExternalRoom::SendPacket(lk::DataPacket packet, bool reliable) {
  if (up_ == nullptr) return;
  if (reliable) packet.set_sequence(++last_sequence_);
  up_->SendData(reliable ? kReliable : kLossy, packet.SerializeAsString());
}

void ExternalRoom::OnData(std::string_view label, webrtc::Bytes message) {
  lk::DataPacket packet;
  const auto observer = observer_.lock();
  if (observer == nullptr || phase_ == Phase::kOver) return;
  if (!packet.ParseFromArray(message.data(), static_cast<int>(message.size()))) return;
  observer->OnPacket(packet, label == kReliable);
}

void ExternalRoom::Send(const lk::SignalRequest& request) {
  if (socket_ == nullptr || phase_ == Phase::kOver) return;
  if (socket_->Send({request.SerializeAsString(), false})) return;
  Lost(Unavailable("the server does not read"));
}

}  // namespace parley::signalling
