#include "webrtc/rtp.h"

#include <algorithm>
#include <cstring>

namespace parley::webrtc {
namespace {

constexpr size_t kRtpHeaderBytes = 12;
constexpr uint16_t kOneByteExtensions = 0xBEDE;
constexpr size_t kReportBlockBytes = 24;
constexpr size_t kSenderInfoBytes = 20;
constexpr size_t kMaxBlocks = 31;
constexpr size_t kMaxCnameBytes = 64;

constexpr uint8_t kSenderReport = 200;
constexpr uint8_t kReceiverReport = 201;
constexpr uint8_t kSourceDescription = 202;
constexpr uint8_t kTransportFeedback = 205;
constexpr uint8_t kPayloadFeedback = 206;
constexpr uint8_t kNackFormat = 1;
constexpr uint8_t kPictureLossFormat = 1;
constexpr uint8_t kFullPictureFormat = 4;
constexpr uint8_t kApplicationFormat = 15;
constexpr uint32_t kEstimateName = 0x52454D42;  // "REMB"
constexpr uint8_t kTransportWideFormat = 15;

constexpr int64_t kReferenceUs = 64'000;  // unit of the feedback's reference time
constexpr int64_t kDeltaUs = 250;         // unit of its differences

void ReadElement(uint8_t id, Bytes value, const RtpExtensions& extensions, RtpPacket* packet) {
  if (id == extensions.audio_level && !value.empty()) {
    packet->audio_level = value[0] & 0x7f;
  } else if (id == extensions.mid) {
    packet->mid = Text(value);
  } else if (id == extensions.rid) {
    packet->rid = Text(value);
  } else if (id == extensions.transport_sequence && value.size() >= 2) {
    packet->transport_sequence = Get16(value.data());
  }
}

// Header extensions of one byte each (RFC 8285). False: they reach over their end.
bool ReadElements(Bytes elements, const RtpExtensions& extensions, RtpPacket* packet) {
  for (size_t at = 0; at < elements.size();) {
    const uint8_t id = elements[at] >> 4;
    const size_t length = (elements[at] & 0x0f) + size_t{1};
    if (id == 0) {  // padding
      ++at;
      continue;
    }
    if (id == 15) return true;  // stop here, says the RFC
    if (at + 1 + length > elements.size()) return false;
    ReadElement(id, elements.subspan(at + 1, length), extensions, packet);
    at += 1 + length;
  }
  return true;
}

ReportBlock ReadBlock(const uint8_t* at) {
  ReportBlock block;
  block.ssrc = Get32(at);
  block.fraction_lost = at[4];
  block.lost = static_cast<int32_t>(Get32(at + 4) << 8) >> 8;
  block.highest_sequence = Get32(at + 8);
  block.jitter = Get32(at + 12);
  block.last_sr = Get32(at + 16);
  block.delay_since_sr = Get32(at + 20);
  return block;
}

bool ReadReport(Bytes body, uint8_t count, bool sender, RtcpReader& reader) {
  const size_t fixed = 4 + (sender ? kSenderInfoBytes : 0);
  if (body.size() < fixed + count * kReportBlockBytes) return false;
  if (sender) {
    SenderReport report;
    report.ssrc = Get32(body.data());
    report.ntp = static_cast<uint64_t>(Get32(body.data() + 4)) << 32 | Get32(body.data() + 8);
    report.rtp_timestamp = Get32(body.data() + 12);
    report.packets = Get32(body.data() + 16);
    report.bytes = Get32(body.data() + 20);
    reader.OnSenderReport(report);
  }
  for (size_t i = 0; i < count; ++i) {
    reader.OnReportBlock(ReadBlock(body.data() + fixed + i * kReportBlockBytes));
  }
  return true;
}

bool ReadNack(Bytes body, RtcpReader& reader) {
  if (body.size() < 12) return false;
  const uint32_t ssrc = Get32(body.data() + 4);
  size_t told = 0;
  for (size_t at = 8; at + 4 <= body.size() && told < kMaxNacked; at += 4) {
    const uint16_t first = Get16(body.data() + at);
    const uint16_t others = Get16(body.data() + at + 2);
    reader.OnNack(ssrc, first);
    ++told;
    for (int bit = 0; bit < 16; ++bit) {
      if ((others >> bit & 1) == 0) continue;
      reader.OnNack(ssrc, static_cast<uint16_t>(first + bit + 1));
      ++told;
    }
  }
  return true;
}

bool ReadPayloadFeedback(uint8_t format, Bytes body, RtcpReader& reader) {
  if (body.size() < 8) return false;
  if (format == kPictureLossFormat) {
    reader.OnPictureLoss(Get32(body.data() + 4));
  } else if (format == kFullPictureFormat) {
    for (size_t at = 8; at + 8 <= body.size(); at += 8) {
      reader.OnPictureLoss(Get32(body.data() + at));
    }
  } else if (format == kApplicationFormat && body.size() >= 16 &&
             Get32(body.data() + 8) == kEstimateName) {
    const int exponent = body[13] >> 2;
    const int64_t mantissa = (body[13] & 3) << 16 | Get16(body.data() + 14);
    if (exponent < 44) reader.OnEstimate(mantissa << exponent);  // otherwise it says nothing
  }
  return true;
}

}  // namespace

bool IsRtcp(Bytes packet) {
  return packet.size() >= 2 && packet[0] >> 6 == 2 && packet[1] >= 192 && packet[1] <= 223;
}

std::optional<RtpPacket> ParseRtp(Bytes packet, const RtpExtensions& extensions) {
  if (packet.size() < kRtpHeaderBytes || packet[0] >> 6 != 2) return std::nullopt;
  RtpPacket parsed;
  parsed.marker = (packet[1] & 0x80) != 0;
  parsed.payload_type = packet[1] & 0x7f;
  parsed.sequence = Get16(packet.data() + 2);
  parsed.timestamp = Get32(packet.data() + 4);
  parsed.ssrc = Get32(packet.data() + 8);
  size_t at = kRtpHeaderBytes + 4 * static_cast<size_t>(packet[0] & 0x0f);
  if ((packet[0] & 0x10) != 0) {
    if (at + 4 > packet.size()) return std::nullopt;
    const uint16_t profile = Get16(packet.data() + at);
    const size_t length = 4 * static_cast<size_t>(Get16(packet.data() + at + 2));
    at += 4;
    if (at + length > packet.size()) return std::nullopt;
    if (profile == kOneByteExtensions &&
        !ReadElements(packet.subspan(at, length), extensions, &parsed)) {
      return std::nullopt;
    }
    at += length;
  }
  const size_t padding = (packet[0] & 0x20) != 0 ? packet.back() : 0;
  if (at + padding > packet.size()) return std::nullopt;
  parsed.payload = packet.subspan(at, packet.size() - at - padding);
  return parsed;
}

size_t WriteRtpHeader(const RtpHeader& header, std::span<uint8_t> out) {
  const bool level = header.audio_level_id != 0;
  const bool extended = level || header.abs_send_time_id != 0;
  out[0] = extended ? 0x90 : 0x80;
  out[1] = static_cast<uint8_t>(header.payload_type | (header.marker ? 0x80 : 0));
  Put16(out.data() + 2, header.sequence);
  Put32(out.data() + 4, header.timestamp);
  Put32(out.data() + 8, header.ssrc);
  if (!extended) return kRtpHeaderBytes;
  Put16(out.data() + 12, kOneByteExtensions);
  Put16(out.data() + 14, 1);
  if (level) {
    out[16] = static_cast<uint8_t>(header.audio_level_id << 4);  // one byte of value
    out[17] = header.audio_level;
    out[18] = out[19] = 0;
    return kRtpHeaderBytes + 8;
  }
  // Seconds with 18 bits behind the point; of those before it six are left.
  const auto seconds = static_cast<uint64_t>(header.send_time_us) * (1 << 18) / 1'000'000;
  out[16] = static_cast<uint8_t>(header.abs_send_time_id << 4 | 2);
  out[17] = static_cast<uint8_t>(seconds >> 16);
  Put16(out.data() + 18, static_cast<uint16_t>(seconds));
  return kRtpHeaderBytes + 8;
}

bool ReadRtcp(Bytes packet, RtcpReader& reader) {
  while (!packet.empty()) {
    if (packet.size() < 4 || packet[0] >> 6 != 2) return false;
    const uint8_t count = packet[0] & 0x1f;
    const uint8_t type = packet[1];
    const size_t size = 4 + 4 * static_cast<size_t>(Get16(packet.data() + 2));
    if (size > packet.size()) return false;
    const Bytes body = packet.subspan(4, size - 4);
    if (type == kSenderReport || type == kReceiverReport) {
      if (!ReadReport(body, count, type == kSenderReport, reader)) return false;
    } else if (type == kTransportFeedback && count == kNackFormat) {
      if (!ReadNack(body, reader)) return false;
    } else if (type == kPayloadFeedback) {
      if (!ReadPayloadFeedback(count, body, reader)) return false;
    }
    packet = packet.subspan(size);
  }
  return true;
}

// Room for a packet of this body, its header written; null when it does not fit.
uint8_t* RtcpWriter::Begin(uint8_t count, uint8_t type, size_t body_bytes) {
  if (size_ + 4 + body_bytes > kMaxRtcpBytes) return nullptr;
  uint8_t* at = buffer_.data() + size_;
  at[0] = static_cast<uint8_t>(0x80 | count);
  at[1] = type;
  Put16(at + 2, static_cast<uint16_t>(body_bytes / 4));
  std::memset(at + 4, 0, body_bytes);
  size_ += 4 + body_bytes;
  return at + 4;
}

void RtcpWriter::PutBlocks(uint8_t* at, std::span<const ReportBlock> blocks) {
  for (const ReportBlock& block : blocks) {
    Put32(at, block.ssrc);
    Put32(at + 4, static_cast<uint32_t>(std::clamp(block.lost, -(1 << 23), (1 << 23) - 1)));
    at[4] = block.fraction_lost;
    Put32(at + 8, block.highest_sequence);
    Put32(at + 12, block.jitter);
    Put32(at + 16, block.last_sr);
    Put32(at + 20, block.delay_since_sr);
    at += kReportBlockBytes;
  }
}

void RtcpWriter::AddSenderReport(const SenderReport& report, std::span<const ReportBlock> blocks) {
  blocks = blocks.first(std::min(blocks.size(), kMaxBlocks));
  uint8_t* at = Begin(static_cast<uint8_t>(blocks.size()), kSenderReport,
                      4 + kSenderInfoBytes + blocks.size() * kReportBlockBytes);
  if (at == nullptr) return;
  Put32(at, report.ssrc);
  Put32(at + 4, static_cast<uint32_t>(report.ntp >> 32));
  Put32(at + 8, static_cast<uint32_t>(report.ntp));
  Put32(at + 12, report.rtp_timestamp);
  Put32(at + 16, report.packets);
  Put32(at + 20, report.bytes);
  PutBlocks(at + 4 + kSenderInfoBytes, blocks);
}

void RtcpWriter::AddReceiverReport(uint32_t own_ssrc, std::span<const ReportBlock> blocks) {
  blocks = blocks.first(std::min(blocks.size(), kMaxBlocks));
  uint8_t* at = Begin(static_cast<uint8_t>(blocks.size()), kReceiverReport,
                      4 + blocks.size() * kReportBlockBytes);
  if (at == nullptr) return;
  Put32(at, own_ssrc);
  PutBlocks(at + 4, blocks);
}

void RtcpWriter::AddCname(uint32_t own_ssrc, std::string_view cname) {
  cname = cname.substr(0, kMaxCnameBytes);
  const size_t items = (2 + cname.size() + 1 + 3) & ~size_t{3};  // with at least one end mark
  uint8_t* at = Begin(1, kSourceDescription, 4 + items);
  if (at == nullptr) return;
  Put32(at, own_ssrc);
  at[4] = 1;
  at[5] = static_cast<uint8_t>(cname.size());
  std::memcpy(at + 6, cname.data(), cname.size());
}

void RtcpWriter::AddNack(uint32_t own_ssrc, uint32_t media_ssrc,
                         std::span<const uint16_t> sequences) {
  struct Item {
    uint16_t first = 0;
    uint16_t others = 0;
  };
  std::array<Item, kMaxNacked> items;
  size_t count = 0;
  for (const uint16_t sequence : sequences.first(std::min(sequences.size(), kMaxNacked))) {
    const auto ahead = static_cast<uint16_t>(count == 0 ? 0 : sequence - items[count - 1].first);
    if (count > 0 && ahead >= 1 && ahead <= 16) {
      items[count - 1].others |= static_cast<uint16_t>(1u << (ahead - 1));
    } else {
      items[count++] = {sequence, 0};
    }
  }
  uint8_t* at = count == 0 ? nullptr : Begin(kNackFormat, kTransportFeedback, 8 + 4 * count);
  if (at == nullptr) return;
  Put32(at, own_ssrc);
  Put32(at + 4, media_ssrc);
  for (size_t i = 0; i < count; ++i) {
    Put16(at + 8 + 4 * i, items[i].first);
    Put16(at + 10 + 4 * i, items[i].others);
  }
}

void RtcpWriter::AddPictureLoss(uint32_t own_ssrc, uint32_t media_ssrc) {
  uint8_t* at = Begin(kPictureLossFormat, kPayloadFeedback, 8);
  if (at == nullptr) return;
  Put32(at, own_ssrc);
  Put32(at + 4, media_ssrc);
}

// Every packet gets a two-bit symbol, seven to a chunk: 0 missing, 1 a small difference, 2 a large
// or negative one.
void RtcpWriter::AddTransportFeedback(uint32_t own_ssrc, uint32_t media_ssrc, uint16_t first,
                                      uint8_t count, std::span<const int64_t> arrivals_us) {
  const auto begin = std::ranges::find_if(arrivals_us, [](int64_t at) { return at >= 0; });
  if (begin == arrivals_us.end()) return;
  const int64_t reference = *begin / kReferenceUs;
  const size_t chunks = (arrivals_us.size() + 6) / 7;
  const size_t most = (8 + 8 + 2 * chunks + 2 * arrivals_us.size() + 3) & ~size_t{3};
  const size_t before = size_;
  uint8_t* at = Begin(kTransportWideFormat, kTransportFeedback, most);
  if (at == nullptr) return;
  Put32(at, own_ssrc);
  Put32(at + 4, media_ssrc);
  Put16(at + 8, first);
  Put16(at + 10, static_cast<uint16_t>(arrivals_us.size()));
  Put32(at + 12, static_cast<uint32_t>(reference) << 8 | count);
  uint8_t* symbols = at + 16;
  uint8_t* delta = symbols + 2 * chunks;
  int64_t previous_us = reference * kReferenceUs;
  for (size_t i = 0; i < chunks * 7; ++i) {
    if (i % 7 == 0) Put16(symbols + 2 * (i / 7), 0xC000);
    if (i >= arrivals_us.size() || arrivals_us[i] < 0) continue;
    const int64_t ticks =
        std::clamp<int64_t>((arrivals_us[i] - previous_us) / kDeltaUs, INT16_MIN, INT16_MAX);
    previous_us += ticks * kDeltaUs;
    const bool small = ticks >= 0 && ticks <= 255;
    const auto symbol = static_cast<uint16_t>((small ? 1 : 2) << (12 - 2 * (i % 7)));
    Put16(symbols + 2 * (i / 7), static_cast<uint16_t>(Get16(symbols + 2 * (i / 7)) | symbol));
    if (small) {
      *delta++ = static_cast<uint8_t>(ticks);
    } else {
      Put16(delta, static_cast<uint16_t>(ticks));
      delta += 2;
    }
  }
  const size_t body = (static_cast<size_t>(delta - at) + 3) & ~size_t{3};
  size_ = before + 4 + body;
  Put16(at - 2, static_cast<uint16_t>(body / 4));
}

}  // namespace parley::webrtc
