#include <parley/room/v1/room.grpc.pb.h>

#include <utility>

#include "line.h"
#include "rpc/bidi.h"

namespace parley::bench {
namespace {

namespace pb = ::parley::room::v1;

constexpr size_t kMaxQueued = 25;  // half a second: what is later than that is dropped
constexpr char kCid[] = "microphone";

class StreamLine final : public Line, public std::enable_shared_from_this<StreamLine> {
 public:
  explicit StreamLine(LineEvents events) : events_(std::move(events)) {}

  void Join(const std::string& media_url, const std::string& token) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    stub_ = pb::MediaService::NewStub(
        grpc::CreateCustomChannel(media_url, grpc::InsecureChannelCredentials(), arguments));
    Stream::Options options;
    options.on_message = [self = shared_from_this()](const pb::JoinResponse& message) {
      self->OnMessage(message);
    };
    options.on_done = [self = shared_from_this()](const absl::Status&) { self->events_.over(); };
    stream_ =
        Stream::Open([&](auto* context, auto* reactor) { stub_->async()->Join(context, reactor); },
                     std::move(options));
    pb::JoinRequest request;
    request.mutable_join()->set_token(token);
    request.mutable_join()->mutable_options()->set_auto_subscribe(true);
    stream_->Send(std::move(request));
  }

  bool Send(uint32_t timestamp, uint8_t level, std::string_view packet) override {
    if (stream_->queued() > kMaxQueued) return false;
    pb::JoinRequest request;
    pb::AudioFrame& audio = *request.mutable_audio();
    {
      MutexLock lock(&mutex_);
      audio.set_track_sid(track_sid_);
    }
    audio.set_timestamp(timestamp);
    audio.set_level(level);
    audio.set_data(packet.data(), packet.size());
    return stream_->Send(std::move(request));
  }
  void HangUp() override { stream_->HalfClose(); }
  void Cut() override { stream_->Cancel(); }

 private:
  using Stream = rpc::ClientBidi<pb::JoinRequest, pb::JoinResponse>;

  void OnMessage(const pb::JoinResponse& message) {
    if (message.has_audio()) return events_.audio(message.audio().timestamp());
    if (message.has_joined()) {
      pb::JoinRequest request;
      pb::PublishTrack& track = *request.mutable_command()->mutable_publish();
      track.set_cid(kCid);
      track.set_kind(pb::TRACK_KIND_AUDIO);
      track.set_source(pb::TRACK_SOURCE_MICROPHONE);
      track.set_codec(pb::CODEC_OPUS);
      stream_->Send(std::move(request));
    }
    if (!message.has_event()) return;
    const pb::RoomEvent& event = message.event();
    if (event.has_track_published() && event.track_published().cid() == kCid) {
      {
        MutexLock lock(&mutex_);
        track_sid_ = event.track_published().track().sid();
      }
      events_.published();
    }
    if (event.has_track_subscribed()) events_.heard();
    if (event.has_subscription_started()) events_.hears();
  }

  const LineEvents events_;
  std::unique_ptr<pb::MediaService::Stub> stub_;
  std::shared_ptr<Stream> stream_;
  Mutex mutex_;
  std::string track_sid_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::shared_ptr<Line> MediaStream(const std::string& media_url, const std::string& token,
                                  LineEvents events) {
  auto line = std::make_shared<StreamLine>(std::move(events));
  line->Join(media_url, token);
  return line;
}

}  // namespace parley::bench
