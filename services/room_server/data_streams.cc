#include "room_server/data_streams.h"

#include <algorithm>

namespace parley::room_server {
namespace {

constexpr char kDtmfTopic[] = "parley.dtmf";
constexpr std::string_view kDtmfKeys = "0123456789*#ABCD";  // in the order of their codes, 0 to 15

bool IsKey(std::string_view text) {
  return text.size() == 1 && kDtmfKeys.find(text) != std::string_view::npos;
}

namespace lk = ::parley::livekit::v1;

constexpr auto kTextMime = "text/plain";
constexpr uint32_t kRpcVersion = 1;
constexpr uint32_t kRpcVersionUnsupported = 1404;

template <typename Map>
void DropOldest(Map& map, size_t most) {
  if (map.size() < most) return;
  map.erase(std::ranges::min_element(map, {}, [](const auto& e) { return e.second.order; }));
}

// How much of `text` makes a chunk: no character is cut.
size_t TextChunk(std::string_view text) {
  if (text.size() <= DataStreams::kChunkBytes) return text.size();
  size_t size = DataStreams::kChunkBytes;
  while (size > 0 && (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80) --size;
  return size == 0 ? DataStreams::kChunkBytes : size;
}

size_t ByteChunk(std::string_view bytes) {
  return std::min(bytes.size(), DataStreams::kChunkBytes);
}

std::optional<DataStreams::Packet> ReadHeader(const lk::DataPacket& packet) {
  const lk::StreamHeader& header = packet.stream_header();
  const auto fill = [&](auto piece) {
    piece.stream_id = header.stream_id();
    piece.topic = header.topic();
    piece.attributes = {header.attributes().begin(), header.attributes().end()};
    piece.destination_identities = {packet.destination_identities().begin(),
                                    packet.destination_identities().end()};
    return piece;
  };
  if (header.compression() != 0) return std::nullopt;
  if (header.has_text_header()) {
    room::TextPacket text = fill(room::TextPacket());
    text.from_identity = packet.participant_identity();  // agents tell what others said
    return text;
  }
  if (!header.has_byte_header()) return std::nullopt;
  room::BytePacket bytes = fill(room::BytePacket());
  bytes.name = header.byte_header().name();
  bytes.mime_type = header.mime_type();
  bytes.total_bytes = header.total_length();
  return bytes;
}

void SetContent(DataStreams::Packet& packet, std::string content) {
  if (auto* text = std::get_if<room::TextPacket>(&packet)) {
    text->text = std::move(content);
  } else {
    std::get<room::BytePacket>(packet).content = std::move(content);
  }
}

}  // namespace

std::optional<DataStreams::Packet> DataStreams::FromClient(const lk::DataPacket& packet) {
  if (packet.has_stream_header()) {
    auto like = ReadHeader(packet);
    if (!like) return std::nullopt;
    if (packet.stream_header().has_inline_content()) {  // the whole stream in one packet
      SetContent(*like, packet.stream_header().inline_content());
      std::visit([](auto& piece) { piece.final = true; }, *like);
      return like;
    }
    DropOldest(incoming_, kMaxOpen);
    incoming_[packet.stream_header().stream_id()] = {*std::move(like), ++order_};
    return std::nullopt;
  }
  const bool over = packet.has_stream_trailer();
  if (!over && !packet.has_stream_chunk()) return std::nullopt;
  const auto stream = incoming_.find(over ? packet.stream_trailer().stream_id()
                                          : packet.stream_chunk().stream_id());
  if (stream == incoming_.end()) return std::nullopt;
  Packet piece = stream->second.like;
  if (!over) {
    SetContent(piece, packet.stream_chunk().content());
    return piece;
  }
  incoming_.erase(stream);
  std::visit(
      [&](auto& last) {
        last.final = true;
        for (const auto& [key, value] : packet.stream_trailer().attributes()) {
          last.attributes[key] = value;
        }
      },
      piece);
  return piece;
}

template <typename Any>
std::vector<lk::DataPacket> DataStreams::Pieces(const Any& packet, std::string_view content,
                                                size_t (*chunk_size)(std::string_view rest),
                                                const lk::StreamHeader& header) {
  std::vector<lk::DataPacket> packets;
  const auto add = [&]() -> lk::DataPacket& {
    lk::DataPacket& added = packets.emplace_back();
    added.set_participant_identity(packet.from_identity);
    return added;
  };
  const std::string key = packet.from_identity + "\n" + packet.stream_id;
  if (!outgoing_.contains(key)) {
    DropOldest(outgoing_, kMaxOpen);
    outgoing_[key].order = ++order_;
    *add().mutable_stream_header() = header;
  }
  while (!content.empty()) {
    const size_t size = chunk_size(content);
    lk::StreamChunk& chunk = *add().mutable_stream_chunk();
    chunk.set_stream_id(packet.stream_id);
    chunk.set_chunk_index(outgoing_[key].next_chunk++);
    chunk.set_content(content.data(), size);
    content.remove_prefix(size);
  }
  if (packet.final) {
    lk::StreamTrailer& trailer = *add().mutable_stream_trailer();
    trailer.set_stream_id(packet.stream_id);
    for (const auto& [name, value] : packet.attributes) {
      (*trailer.mutable_attributes())[name] = value;
    }
    outgoing_.erase(key);
  }
  return packets;
}

namespace {

template <typename Any>
lk::StreamHeader HeaderOf(const Any& packet, absl::Time now) {
  lk::StreamHeader header;
  header.set_stream_id(packet.stream_id);
  header.set_timestamp(absl::ToUnixMillis(now));
  header.set_topic(packet.topic);
  for (const auto& [name, value] : packet.attributes) (*header.mutable_attributes())[name] = value;
  return header;
}

}  // namespace

std::vector<lk::DataPacket> DataStreams::ToClient(const room::TextPacket& packet, absl::Time now) {
  lk::StreamHeader header = HeaderOf(packet, now);
  header.set_mime_type(kTextMime);
  header.mutable_text_header();
  return Pieces(packet, packet.text, TextChunk, header);
}

std::vector<lk::DataPacket> DataStreams::ToClient(const room::BytePacket& packet, absl::Time now) {
  lk::StreamHeader header = HeaderOf(packet, now);
  header.set_mime_type(packet.mime_type);
  header.mutable_byte_header()->set_name(packet.name);
  if (packet.total_bytes != 0) header.set_total_length(packet.total_bytes);
  return Pieces(packet, packet.content, ByteChunk, header);
}

std::optional<room::RpcPacket> RpcFromClient(const lk::DataPacket& packet) {
  room::RpcPacket out;
  if (!packet.destination_identities().empty()) {
    out.destination_identity = packet.destination_identities(0);
  }
  if (packet.has_rpc_request()) {
    const lk::RpcRequest& request = packet.rpc_request();
    out.request_id = request.id();
    out.method = request.method();
    out.payload = request.payload();
    out.response_timeout = absl::Milliseconds(request.response_timeout_ms());
    return out;
  }
  if (packet.has_rpc_ack()) {
    out.step = room::RpcPacket::Step::kAck;
    out.request_id = packet.rpc_ack().request_id();
    return out;
  }
  if (!packet.has_rpc_response()) return std::nullopt;
  const lk::RpcResponse& response = packet.rpc_response();
  out.step = room::RpcPacket::Step::kResponse;
  out.request_id = response.request_id();
  out.payload = response.payload();
  if (response.has_error()) {
    out.error_code = response.error().code();
    out.error_message = response.error().message();
    out.error_data = response.error().data();
  } else if (response.value_case() == lk::RpcResponse::VALUE_NOT_SET) {
    out.error_code = kRpcVersionUnsupported;  // compressed: of a newer protocol than ours
    out.error_message = "the response is in a form that this server does not know";
  }
  return out;
}

std::optional<room::DataPacket> KeyFromClient(const lk::DataPacket& packet) {
  if (!packet.has_sip_dtmf()) return std::nullopt;
  room::DataPacket out;
  const lk::SipDTMF& key = packet.sip_dtmf();
  // Some say the digit, some the code, most both.
  out.payload = key.digit();
  if (out.payload.empty() && key.code() < kDtmfKeys.size()) out.payload = kDtmfKeys[key.code()];
  if (!IsKey(out.payload)) return std::nullopt;
  out.topic = kDtmfTopic;
  out.reliable = true;
  out.destination_identities = {packet.destination_identities().begin(),
                                packet.destination_identities().end()};
  return out;
}

std::optional<lk::DataPacket> KeyToClient(const room::DataPacket& packet) {
  if (packet.topic != kDtmfTopic || !IsKey(packet.payload)) return std::nullopt;
  lk::DataPacket out;
  out.set_participant_identity(packet.from_identity);
  out.mutable_sip_dtmf()->set_digit(packet.payload);
  out.mutable_sip_dtmf()->set_code(static_cast<uint32_t>(kDtmfKeys.find(packet.payload)));
  return out;
}

lk::DataPacket ToClient(const room::RpcPacket& packet) {
  lk::DataPacket out;
  out.set_participant_identity(packet.from_identity);
  switch (packet.step) {
    case room::RpcPacket::Step::kRequest: {
      lk::RpcRequest& request = *out.mutable_rpc_request();
      request.set_id(packet.request_id);
      request.set_method(packet.method);
      request.set_payload(packet.payload);
      request.set_response_timeout_ms(
          static_cast<uint32_t>(absl::ToInt64Milliseconds(packet.response_timeout)));
      request.set_version(kRpcVersion);
      return out;
    }
    case room::RpcPacket::Step::kAck:
      out.mutable_rpc_ack()->set_request_id(packet.request_id);
      return out;
    case room::RpcPacket::Step::kResponse:
      break;
  }
  lk::RpcResponse& response = *out.mutable_rpc_response();
  response.set_request_id(packet.request_id);
  if (packet.error_code == 0) {
    response.set_payload(packet.payload);
    return out;
  }
  response.mutable_error()->set_code(packet.error_code);
  response.mutable_error()->set_message(packet.error_message);
  response.mutable_error()->set_data(packet.error_data);
  return out;
}

}  // namespace parley::room_server
