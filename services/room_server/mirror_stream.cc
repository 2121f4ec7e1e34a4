// Owners of mirrors: their streams, and which mirrors there are.
#include <atomic>

#include "base/status.h"
#include "room_server/connector.h"

namespace parley::room_server {
namespace {

constexpr size_t kOutbox = 256;
// Who is there decides the external room; a mirror without an agent ends by itself.
constexpr absl::Duration kRoomTimeout = absl::Hours(24);

uint64_t NextNumber() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace

std::shared_ptr<Connector> Connectors::FindOrStart(const std::shared_ptr<Host>& host,
                                                   const std::shared_ptr<room::Room>& room,
                                                   const std::string& url,
                                                   const std::string& token) {
  std::shared_ptr<Connector> made;
  {
    MutexLock lock(&mutex_);
    auto& connector = connectors_[room->sid()];
    if (connector != nullptr) return connector;
    connector = made = std::make_shared<Connector>(host, *this, room);
  }
  made->Start(url, token);
  return made;
}

void Connectors::Forget(const Connector& connector) {
  MutexLock lock(&mutex_);
  connectors_.erase(connector.room()->sid());
}

MirrorStream::MirrorStream(std::shared_ptr<Host> host, Connectors& connectors, bool is_service)
    : BidiSession(host->context().executor(), kOutbox),
      host_(std::move(host)),
      connectors_(connectors),
      is_service_(is_service),
      number_(NextNumber()) {}

void MirrorStream::OnMessage(const room::v1::MirrorRequest& message) {
  if (message.has_close()) {
    if (connector_ != nullptr) connector_->Stop();
    return;
  }
  if (!message.has_open()) return;  // of a newer owner
  if (std::exchange(asked_, true)) {
    return Close(rpc::ToGrpcStatus(FailedPrecondition("this stream has a mirror already")));
  }
  Open(message.open());
}

void MirrorStream::Open(const room::v1::OpenMirror& open) {
  absl::Status status;
  if (!is_service_) {
    status = Unauthenticated("mirrors are for services only");
  } else if (open.token().empty()) {
    status = InvalidArgument("token is empty");
  } else if (auto url = http::ParseWebSocketUrl(open.url()); !url.ok()) {
    status = Annotate(url.status(), "url");
  }
  if (!status.ok()) return Close(rpc::ToGrpcStatus(status));
  // The claim blocks on the store.
  const bool posted = host_->control().Post([self = Self<MirrorStream>(), open] {
    room::RoomOptions options;
    options.project = open.project().empty() ? "default" : open.project();
    options.name = open.room();
    options.empty_timeout = options.departure_timeout = kRoomTimeout;
    auto opened = self->host_->Open(options);
    self->strand().Post([self, open, opened = std::move(opened)]() mutable {
      self->OnOpened(open, std::move(opened));
    });
  });
  if (!posted) Close(rpc::ToGrpcStatus(ResourceExhausted("the room server is busy")));
}

void MirrorStream::OnOpened(const room::v1::OpenMirror& open,
                            absl::StatusOr<room::Rooms::Opened> opened) {
  if (!opened.ok()) return Close(rpc::ToGrpcStatus(opened.status()));
  if (over_) return;
  connector_ = connectors_.FindOrStart(host_, opened->room, open.url(), open.token());
  connector_->Own(number_, [self = Self<MirrorStream>()](const room::v1::MirrorResponse& response) {
    if (!self->Send(response)) {
      return self->Close(
          grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the owner reads too slowly"));
    }
    if (response.has_ended()) self->Close(grpc::Status::OK);
  });
}

void MirrorStream::OnClosed() {
  over_ = true;
  if (connector_ != nullptr) connector_->Disown(number_);
  connector_ = nullptr;
}

grpc::ServerBidiReactor<room::v1::MirrorRequest, room::v1::MirrorResponse>*
ConnectorServiceImpl::Connect(grpc::CallbackServerContext* context) {
  const auto claims = host_->context().Authenticate(*context);
  return MirrorStream::Start<MirrorStream>(host_, connectors_, claims.ok() && claims->is_service());
}

}  // namespace parley::room_server
