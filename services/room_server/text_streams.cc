#include "room_server/text_streams.h"

#include <algorithm>

namespace parley::room_server {
namespace {

namespace lk = ::parley::livekit::v1;

constexpr auto kTextMime = "text/plain";

template <typename Map>
void DropOldest(Map& map, size_t most) {
  if (map.size() < most) return;
  map.erase(std::ranges::min_element(map, {}, [](const auto& e) { return e.second.order; }));
}

template <typename Map>
room::Attributes ToAttributes(const Map& map) {
  return {map.begin(), map.end()};
}

// How much of `text` makes a chunk: no character is cut.
size_t ChunkSize(std::string_view text) {
  if (text.size() <= TextStreams::kChunkBytes) return text.size();
  size_t size = TextStreams::kChunkBytes;
  while (size > 0 && (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80) --size;
  return size == 0 ? TextStreams::kChunkBytes : size;
}

}  // namespace

std::optional<room::TextPacket> TextStreams::FromClient(const lk::DataPacket& packet) {
  room::TextPacket text;
  if (packet.has_stream_header()) {
    const lk::StreamHeader& header = packet.stream_header();
    if (!header.has_text_header() || header.compression() != 0) return std::nullopt;
    Incoming stream{
        header.topic(),
        ToAttributes(header.attributes()),
        {packet.destination_identities().begin(), packet.destination_identities().end()},
        ++order_};
    text.stream_id = header.stream_id();
    text.topic = stream.topic;
    text.attributes = stream.attributes;
    text.destination_identities = stream.destinations;
    if (header.has_inline_content()) {  // the whole text in one packet
      text.text = header.inline_content();
      text.final = true;
      return text;
    }
    DropOldest(incoming_, kMaxOpen);
    incoming_[header.stream_id()] = std::move(stream);
    return std::nullopt;
  }
  const bool over = packet.has_stream_trailer();
  text.stream_id = over ? packet.stream_trailer().stream_id() : packet.stream_chunk().stream_id();
  const auto stream = incoming_.find(text.stream_id);
  if (stream == incoming_.end()) return std::nullopt;
  text.topic = stream->second.topic;
  text.attributes = stream->second.attributes;
  text.destination_identities = stream->second.destinations;
  text.final = over;
  if (over) {
    for (const auto& [key, value] : packet.stream_trailer().attributes()) {
      text.attributes[key] = value;
    }
    incoming_.erase(stream);
  } else {
    text.text = packet.stream_chunk().content();
  }
  return text;
}

std::vector<lk::DataPacket> TextStreams::ToClient(const room::TextPacket& packet, absl::Time now) {
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
    lk::StreamHeader& header = *add().mutable_stream_header();
    header.set_stream_id(packet.stream_id);
    header.set_timestamp(absl::ToUnixMillis(now));
    header.set_topic(packet.topic);
    header.set_mime_type(kTextMime);
    header.mutable_text_header();
    for (const auto& [name, value] : packet.attributes) {
      (*header.mutable_attributes())[name] = value;
    }
  }
  for (std::string_view rest = packet.text; !rest.empty();) {
    const size_t size = ChunkSize(rest);
    lk::StreamChunk& chunk = *add().mutable_stream_chunk();
    chunk.set_stream_id(packet.stream_id);
    chunk.set_chunk_index(outgoing_[key].next_chunk++);
    chunk.set_content(rest.data(), size);
    rest.remove_prefix(size);
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

}  // namespace parley::room_server
