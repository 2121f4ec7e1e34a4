#include "room_server/signal_codec.h"

#include <google/protobuf/util/json_util.h>
#include <openssl/evp.h>
#include <zlib.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "base/strings.h"

namespace parley::room_server {
namespace {

constexpr size_t kMaxParameterBytes = 64 << 10;
constexpr auto kOpusMime = "audio/opus";

absl::StatusOr<std::string> FromBase64Url(std::string_view text) {
  if (text.size() > kMaxParameterBytes) return InvalidArgument("join_request is too long");
  std::string plain(text);
  while (plain.ends_with('=')) plain.pop_back();
  std::ranges::replace(plain, '-', '+');
  std::ranges::replace(plain, '_', '/');
  const size_t padding = (4 - plain.size() % 4) % 4;
  plain.append(padding, '=');
  std::string out(plain.size() / 4 * 3, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<uint8_t*>(out.data()),
                                   reinterpret_cast<const uint8_t*>(plain.data()),
                                   static_cast<int>(plain.size()));
  if (size < 0 || padding > 2) return InvalidArgument("join_request is not base64url");
  out.resize(static_cast<size_t>(size) - padding);
  return out;
}

absl::StatusOr<std::string> Gunzip(const std::string& packed) {
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 16) != Z_OK) return Internal("zlib does not start");
  std::string out(kMaxJoinRequestBytes, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = inflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  inflateEnd(&stream);
  if (result != Z_STREAM_END) return InvalidArgument("join_request is not gzip, or too long");
  return out;
}

lk::TrackSource SourceOf(room::TrackSource source) {
  switch (source) {
    case room::TrackSource::kCamera:
      return lk::CAMERA;
    case room::TrackSource::kMicrophone:
      return lk::MICROPHONE;
    case room::TrackSource::kScreenShare:
      return lk::SCREEN_SHARE;
    case room::TrackSource::kScreenShareAudio:
      return lk::SCREEN_SHARE_AUDIO;
    case room::TrackSource::kUnknown:
      break;
  }
  return lk::UNKNOWN;
}

lk::ParticipantInfo::Kind KindOf(room::Kind kind) {
  switch (kind) {
    case room::Kind::kAgent:
      return lk::ParticipantInfo::AGENT;
    case room::Kind::kSip:
      return lk::ParticipantInfo::SIP;
    case room::Kind::kRecorder:
      return lk::ParticipantInfo::EGRESS;
    case room::Kind::kStandard:
      break;
  }
  return lk::ParticipantInfo::STANDARD;
}

}  // namespace

absl::StatusOr<lk::JoinRequest> ReadJoinRequest(std::string_view parameter) {
  PARLEY_ASSIGN_OR_RETURN(const std::string bytes, FromBase64Url(parameter));
  lk::WrappedJoinRequest wrapped;
  if (!wrapped.ParseFromString(bytes)) return InvalidArgument("join_request is malformed");
  std::string plain = wrapped.join_request();
  if (wrapped.compression() == lk::WrappedJoinRequest::GZIP) {
    PARLEY_ASSIGN_OR_RETURN(plain, Gunzip(wrapped.join_request()));
  }
  lk::JoinRequest request;
  if (!request.ParseFromString(plain)) return InvalidArgument("join_request is malformed");
  return request;
}

absl::StatusOr<lk::JoinRequest> ReadJoinQuery(const std::map<std::string, std::string>& query) {
  const auto value = [&](const char* name) {
    const auto found = query.find(name);
    return found == query.end() ? std::string() : found->second;
  };
  const auto is = [&](const char* name, bool fallback) {
    const std::string text = value(name);
    return text.empty() ? fallback : text == "1" || text == "true";
  };
  lk::JoinRequest request;
  request.mutable_connection_settings()->set_auto_subscribe(is("auto_subscribe", true));
  request.set_reconnect(is("reconnect", false));
  request.set_participant_sid(value("sid"));
  const std::string attributes = value("attributes");
  if (attributes.empty()) return request;
  PARLEY_ASSIGN_OR_RETURN(const std::string text, FromBase64Url(attributes));
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return InvalidArgument("attributes is not a JSON object");
  for (const auto& [key, one] : json.items()) {
    if (!one.is_string()) return InvalidArgument("attribute \"{}\" is not a string", key);
    (*request.mutable_participant_attributes())[key] = one.get<std::string>();
  }
  return request;
}

absl::StatusOr<lk::SignalRequest> ReadSignalRequest(std::string_view data, bool json) {
  lk::SignalRequest request;
  if (json) {
    google::protobuf::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;
    if (!google::protobuf::util::JsonStringToMessage(std::string(data), &request, options).ok()) {
      return InvalidArgument("a signalling frame is malformed");
    }
  } else if (!request.ParseFromArray(data.data(), static_cast<int>(data.size()))) {
    return InvalidArgument("a signalling frame is malformed");
  }
  return request;
}

std::string WriteSignalResponse(const lk::SignalResponse& response, bool json) {
  if (!json) return response.SerializeAsString();
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(response, &text);
  return text;
}

lk::Room ToLiveKit(const room::RoomInfo& info) {
  lk::Room room;
  room.set_sid(info.sid);
  room.set_name(info.name);
  room.set_metadata(info.metadata);
  room.set_empty_timeout(static_cast<uint32_t>(absl::ToInt64Seconds(info.empty_timeout)));
  room.set_departure_timeout(static_cast<uint32_t>(absl::ToInt64Seconds(info.departure_timeout)));
  room.set_max_participants(static_cast<uint32_t>(info.max_participants));
  room.set_creation_time(absl::ToUnixSeconds(info.create_time));
  room.set_num_participants(static_cast<uint32_t>(info.num_participants));
  return room;
}

lk::TrackInfo ToLiveKit(const room::Track& track) {
  lk::TrackInfo info;
  info.set_sid(track.sid);
  info.set_type(track.kind == room::TrackKind::kAudio ? lk::AUDIO : lk::VIDEO);
  info.set_name(track.name);
  info.set_muted(track.muted);
  info.set_source(SourceOf(track.source));
  info.set_encryption(track.encryption == room::Encryption::kNone  ? lk::NO_ENCRYPTION
                      : track.encryption == room::Encryption::kGcm ? lk::GCM
                                                                   : lk::CUSTOM);
  if (track.kind == room::TrackKind::kAudio) {
    info.set_mime_type(kOpusMime);  // PCM is coded on its way to such clients
    info.set_disable_red(true);
    return info;
  }
  info.set_mime_type(track.codec == room::Codec::kVp9    ? "video/VP9"
                     : track.codec == room::Codec::kH264 ? "video/H264"
                                                         : "video/VP8");
  info.set_width(track.picture.width);
  info.set_height(track.picture.height);
  info.set_simulcast(track.picture.layers.size() > 1);
  for (const room::VideoLayer& layer : track.picture.layers) {
    lk::VideoLayer& out = *info.add_layers();
    out.set_quality(static_cast<lk::VideoQuality>(layer.quality));
    out.set_width(layer.width);
    out.set_height(layer.height);
    out.set_bitrate(layer.bitrate_bps);
    out.set_spatial_layer(info.layers_size() - 1);
  }
  lk::SimulcastCodecInfo& codec = *info.add_codecs();
  codec.set_mime_type(info.mime_type());
  *codec.mutable_layers() = info.layers();
  return info;
}

room::Encryption FromLiveKit(lk::EncryptionType encryption) {
  return encryption == lk::NO_ENCRYPTION ? room::Encryption::kNone
         : encryption == lk::GCM         ? room::Encryption::kGcm
                                         : room::Encryption::kCustom;
}

void ReadVideo(const lk::AddTrackRequest& request, room::PublishRequest* publish) {
  const bool told = request.simulcast_codecs_size() > 0;
  std::string codec = told ? ToLower(request.simulcast_codecs(0).codec()) : std::string();
  if (codec.starts_with("video/")) codec.erase(0, 6);
  publish->codec = codec == "vp9"    ? room::Codec::kVp9
                   : codec == "h264" ? room::Codec::kH264
                                     : room::Codec::kVp8;
  publish->picture.width = request.width();
  publish->picture.height = request.height();
  const bool own = told && request.simulcast_codecs(0).layers_size() > 0;
  for (const lk::VideoLayer& layer :
       own ? request.simulcast_codecs(0).layers() : request.layers()) {
    publish->picture.layers.push_back(
        {static_cast<int>(layer.quality()), layer.width(), layer.height(), layer.bitrate()});
  }
  std::ranges::stable_sort(publish->picture.layers, {}, &room::VideoLayer::quality);
}

std::string_view SdpName(room::Codec codec) {
  switch (codec) {
    case room::Codec::kVp8:
      return "vp8";
    case room::Codec::kVp9:
      return "vp9";
    case room::Codec::kH264:
      return "h264";
    case room::Codec::kOpus:
    case room::Codec::kPcm16:
      break;
  }
  return "opus";
}

int HighestLayer(const lk::UpdateTrackSettings& wish, const lk::TrackInfo& track) {
  if (wish.disabled() || wish.quality() == lk::OFF) return -1;
  const int last = static_cast<int>(room::kMaxLayers) - 1;
  for (int i = 0; i < track.layers_size(); ++i) {
    const lk::VideoLayer& layer = track.layers(i);
    const bool enough = wish.width() != 0
                            ? layer.width() >= wish.width() && layer.height() >= wish.height()
                            : layer.quality() >= wish.quality();
    if (enough) return std::min(i, last);
  }
  return last;
}

lk::ParticipantInfo ToLiveKit(const room::ParticipantInfo& info) {
  lk::ParticipantInfo out;
  out.set_sid(info.sid);
  out.set_identity(info.identity);
  out.set_name(info.name);
  out.set_metadata(info.metadata);
  out.set_state(info.state == room::State::kDisconnected ? lk::ParticipantInfo::DISCONNECTED
                : info.state == room::State::kJoined     ? lk::ParticipantInfo::JOINED
                                                         : lk::ParticipantInfo::ACTIVE);
  out.set_kind(KindOf(info.kind));
  out.set_joined_at(absl::ToUnixSeconds(info.join_time));
  for (const auto& [key, value] : info.attributes) (*out.mutable_attributes())[key] = value;
  for (const room::Track& track : info.tracks) *out.add_tracks() = ToLiveKit(track);
  out.set_is_publisher(!info.tracks.empty());
  lk::ParticipantPermission& permission = *out.mutable_permission();
  permission.set_can_subscribe(info.permission.can_subscribe);
  permission.set_can_publish(info.permission.can_publish);
  permission.set_can_publish_data(info.permission.can_publish_data);
  permission.set_can_update_metadata(info.permission.can_update_metadata);
  permission.set_hidden(info.permission.hidden);
  for (const room::TrackSource source : info.permission.can_publish_sources) {
    permission.add_can_publish_sources(SourceOf(source));
  }
  return out;
}

lk::ConnectionQuality ToLiveKit(room::Quality quality) {
  switch (quality) {
    case room::Quality::kLost:
      return lk::LOST;
    case room::Quality::kPoor:
      return lk::POOR;
    case room::Quality::kGood:
      return lk::GOOD;
    case room::Quality::kExcellent:
    case room::Quality::kUnknown:
      break;
  }
  return lk::EXCELLENT;
}

lk::DisconnectReason ToLiveKit(room::LeaveReason reason) {
  switch (reason) {
    case room::LeaveReason::kClientInitiated:
      return lk::CLIENT_INITIATED;
    case room::LeaveReason::kDuplicateIdentity:
    case room::LeaveReason::kReplaced:
      return lk::DUPLICATE_IDENTITY;
    case room::LeaveReason::kServerShutdown:
      return lk::SERVER_SHUTDOWN;
    case room::LeaveReason::kParticipantRemoved:
      return lk::PARTICIPANT_REMOVED;
    case room::LeaveReason::kRoomDeleted:
      return lk::ROOM_DELETED;
    case room::LeaveReason::kRoomClosed:
      return lk::ROOM_CLOSED;
    case room::LeaveReason::kConnectionLost:
      return lk::SIGNAL_CLOSE;
    case room::LeaveReason::kAgentError:
      break;
  }
  return lk::UNKNOWN_REASON;
}

room::TrackSource FromLiveKit(lk::TrackSource source) {
  switch (source) {
    case lk::CAMERA:
      return room::TrackSource::kCamera;
    case lk::MICROPHONE:
      return room::TrackSource::kMicrophone;
    case lk::SCREEN_SHARE:
      return room::TrackSource::kScreenShare;
    case lk::SCREEN_SHARE_AUDIO:
      return room::TrackSource::kScreenShareAudio;
    default:
      return room::TrackSource::kUnknown;
  }
}

}  // namespace parley::room_server
