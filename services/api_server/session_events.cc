#include "api_server/session_events.h"

#include <map>
#include <string>
#include <utility>

#include "api_server/event_pump.h"
#include "api_server/routes.h"
#include "base/ids.h"
#include "base/mutex.h"
#include "base/status.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

namespace roomv1 = ::parley::room::v1;

constexpr char kAgentState[] = "lk.agent.state";
constexpr char kTranscription[] = "lk.transcription";
constexpr size_t kMaxSegments = 16;           // spoken at once
constexpr size_t kMaxSegmentBytes = 1 << 16;  // of one; what is beyond is not shown

bool Tell(http::BodyStream& body, const Json& what) {
  return body.Write(ServerSentEvent(what.dump(-1, ' ', false, Json::error_handler_t::replace)));
}

// What a hidden participant sees of the room, told to one HTTP client.
class RoomWatch : public std::enable_shared_from_this<RoomWatch> {
 public:
  explicit RoomWatch(std::shared_ptr<http::BodyStream> body) : body_(std::move(body)) {}

  void Join(const std::string& address, const std::string& token) {
    using Stream = rpc::ClientBidi<roomv1::JoinRequest, roomv1::JoinResponse>;
    auto stub = std::shared_ptr<roomv1::MediaService::Stub>(
        roomv1::MediaService::NewStub(rpc::MakeCallChannel(address)));
    Stream::Options options;
    options.on_message = [self = shared_from_this(), stub](roomv1::JoinResponse& response) {
      self->OnResponse(response);
    };
    // Without the room there are still the dispatch's events, and they say when all is over.
    options.on_done = [self = shared_from_this()](const absl::Status&) { self->Forget(); };
    MutexLock lock(&mutex_);
    if (over_) return;
    stream_ =
        Stream::Open([&](auto* context, auto* reactor) { stub->async()->Join(context, reactor); },
                     std::move(options));
    roomv1::JoinRequest join;
    join.mutable_join()->set_token(token);
    stream_->Send(std::move(join));
  }

  void Leave() {
    MutexLock lock(&mutex_);
    over_ = true;
    if (stream_ != nullptr) stream_->Cancel();
  }

 private:
  void Forget() {
    decltype(stream_) over;  // it holds us, and we hold it
    MutexLock lock(&mutex_);
    over = std::exchange(stream_, nullptr);
  }

  void OnResponse(const roomv1::JoinResponse& response) {
    if (response.has_joined()) {
      for (const auto& other : response.joined().others()) Show(other);
    } else if (response.has_event()) {
      OnEvent(response.event());
    }
  }
  void OnEvent(const roomv1::RoomEvent& event) {
    if (event.has_participant_joined()) return Show(event.participant_joined().participant());
    if (event.has_participant_updated()) return Show(event.participant_updated().participant());
    if (event.has_participant_left()) return Left(event.participant_left().identity());
    if (event.has_text()) return Heard(event.text());
    if (event.has_data()) return Reported(event.data());
  }

  void Show(const roomv1::Participant& participant) {
    if (participant.kind() != roomv1::PARTICIPANT_KIND_AGENT) return;
    const auto found = participant.attributes().find(kAgentState);
    const std::string now = found == participant.attributes().end() ? "" : found->second;
    const auto [known, added] = agents_.try_emplace(participant.identity());
    if (!added && known->second == now) return;
    known->second = now;
    Tell(*body_, {{"type", "agent"}, {"identity", participant.identity()}, {"state", now}});
  }
  void Left(const std::string& identity) {
    if (agents_.erase(identity) == 0) return;
    Tell(*body_, {{"type", "agent"}, {"identity", identity}, {"state", ""}});
  }

  void Heard(const roomv1::TextPacket& packet) {
    if (packet.topic() != kTranscription) return;
    if (segments_.size() >= kMaxSegments && !segments_.contains(packet.stream_id())) {
      segments_.clear();  // of streams that never ended
    }
    std::string& text = segments_[packet.stream_id()];
    if (text.size() + packet.text().size() <= kMaxSegmentBytes) text += packet.text();
    const auto attribute = [&](const char* name) {
      const auto found = packet.attributes().find(name);
      return found == packet.attributes().end() ? std::string() : found->second;
    };
    Tell(*body_, {{"type", "transcript"},
                  {"identity", packet.from_identity()},
                  {"segmentId", attribute("lk.segment_id")},
                  {"text", text},
                  {"final", attribute("lk.transcription_final") == "true"}});
    if (packet.final()) segments_.erase(packet.stream_id());
  }

  void Reported(const roomv1::DataPacket& packet) {
    const bool turn = packet.topic() == "parley.turn_report";
    if (!turn && packet.topic() != "parley.stalled") return;
    if (!agents_.contains(packet.from_identity())) return;
    Json told = Json::parse(packet.payload(), nullptr, false);
    if (!told.is_object()) return;
    told["type"] = turn ? "turn" : "stalled";
    told["identity"] = packet.from_identity();
    Tell(*body_, told);
  }

  const std::shared_ptr<http::BodyStream> body_;
  // In the stream's reads, which come one at a time.
  std::map<std::string, std::string> agents_;    // identity → state
  std::map<std::string, std::string> segments_;  // stream id → text
  Mutex mutex_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<rpc::ClientBidi<roomv1::JoinRequest, roomv1::JoinResponse>> stream_
      ABSL_GUARDED_BY(mutex_);
};

// Where the room is; "" when there is none (any more): to join would make it anew.
absl::StatusOr<std::string> MediaAddress(Backend& backend, const std::string& bearer,
                                         const std::string& room) {
  roomv1::ListRoomsRequest call;
  call.add_names(room);
  grpc::ClientContext context;
  Prepare(context, bearer);
  roomv1::ListRoomsResponse response;
  PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(backend.rooms->ListRooms(&context, call, &response)));
  return response.rooms().empty() ? std::string() : response.rooms(0).media_url();
}

}  // namespace

absl::Status WatchSession(Backend& backend, const auth::Claims& caller, const std::string& bearer,
                          const dispatch::v1::Session& session,
                          const std::shared_ptr<http::BodyStream>& body) {
  Json first = {{"type", "session"}, {"session", ToJson(session)}};
  Tell(*body, first);
  PARLEY_ASSIGN_OR_RETURN(
      const std::string media,
      MediaAddress(backend, backend.context.ServiceToken(caller.project), session.room()));
  std::shared_ptr<RoomWatch> watch;
  if (!media.empty() && session.state() != "ENDED") {
    auth::Claims hidden;
    hidden.identity = "watch-" + RandomBase62(12);
    hidden.video.room_join = true;
    hidden.video.room = session.room();
    hidden.video.hidden = true;
    hidden.video.recorder = true;  // no person: nobody waits for it, and no room stays open for it
    hidden.video.can_publish = false;
    hidden.video.can_publish_data = false;
    PARLEY_ASSIGN_OR_RETURN(const std::string token,
                            PersonToken(backend, caller, std::move(hidden)));
    watch = std::make_shared<RoomWatch>(body);
    watch->Join(media, token);
  }
  dispatch::v1::WatchEventsRequest call;
  call.set_dispatch_id(session.dispatch_id());
  call.set_after_position("0");
  call.set_past_only(session.state() == "ENDED");
  EventPump::Reader reader;
  reader.on_event = [body](const dispatch::v1::Event& event) {
    if (!Tell(*body, {{"type", "job"}, {"event", ToJson(event)}})) return false;
    return event.type() != "dispatch_ended";
  };
  reader.on_end = [body, watch] {
    if (watch != nullptr) watch->Leave();
    body->End();
  };
  const auto pump = EventPump::Start(backend, bearer, call, std::move(reader));
  if (!pump.ok()) {
    if (watch != nullptr) watch->Leave();
    return pump.status();
  }
  body->OnGone([weak = std::weak_ptr<EventPump>(*pump)] {
    if (const auto alive = weak.lock()) alive->Cancel();
  });
  return absl::OkStatus();
}

}  // namespace parley::api_server
