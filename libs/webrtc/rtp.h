#pragma once
// RTP and RTCP (RFC 3550, 4585, 8285, 6464; transport-wide feedback as in
// draft-holmer-rmcat-transport-wide-cc-extensions-01): reading and writing of borrowed bytes.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "webrtc/bytes.h"

namespace parley::webrtc {

inline constexpr size_t kMaxRtpHeaderBytes = 12 + 8;  // as WriteRtpHeader makes it
inline constexpr size_t kMaxRtcpBytes = 1200;
inline constexpr size_t kMaxNacked = 64;  // sequence numbers of one NACK

// RTCP on the same port is told apart by its packet type (RFC 5761).
bool IsRtcp(Bytes packet);

struct RtpExtensions {  // ids as negotiated; 0 = not used
  uint8_t audio_level = 0;
  uint8_t mid = 0;
  uint8_t transport_sequence = 0;
  uint8_t rid = 0;
};

// A parsed packet; borrows the bytes it came from.
struct RtpPacket {
  uint8_t payload_type = 0;
  bool marker = false;
  uint16_t sequence = 0;
  uint32_t timestamp = 0;
  uint32_t ssrc = 0;
  uint32_t audio_level = 127;  // -dBov; 127 when unknown
  std::string_view mid;
  std::string_view rid;
  std::optional<uint16_t> transport_sequence;
  Bytes payload;  // without padding
};

// nullopt: malformed.
std::optional<RtpPacket> ParseRtp(Bytes packet, const RtpExtensions& extensions);

// The header of one packet; the audio level goes in when `audio_level_id` is not 0, else the time
// when `abs_send_time_id` is not 0. Returns how many bytes of `out` (at least kMaxRtpHeaderBytes)
// it used.
struct RtpHeader {
  uint8_t payload_type = 0;
  bool marker = false;
  uint16_t sequence = 0;
  uint32_t timestamp = 0;
  uint32_t ssrc = 0;
  uint8_t audio_level_id = 0;
  uint8_t audio_level = 127;
  uint8_t abs_send_time_id = 0;
  int64_t send_time_us = 0;  // of any clock that goes on
};
size_t WriteRtpHeader(const RtpHeader& header, std::span<uint8_t> out);

struct ReportBlock {
  uint32_t ssrc = 0;          // whose packets it is about
  uint8_t fraction_lost = 0;  // of 256, since the last report
  int32_t lost = 0;           // in all, 24 bits
  uint32_t highest_sequence = 0;
  uint32_t jitter = 0;          // in units of the media clock
  uint32_t last_sr = 0;         // middle of the NTP time of the last sender report; 0 = none
  uint32_t delay_since_sr = 0;  // 1/65536 s
};

struct SenderReport {
  uint32_t ssrc = 0;
  uint64_t ntp = 0;  // 32.32 bits
  uint32_t rtp_timestamp = 0;
  uint32_t packets = 0;
  uint32_t bytes = 0;
};

// Hears what a compound packet says, piece by piece, in its order.
class RtcpReader {
 public:
  virtual ~RtcpReader() = default;
  virtual void OnSenderReport(const SenderReport& report) = 0;
  virtual void OnReportBlock(const ReportBlock& block) = 0;
  virtual void OnNack(uint32_t media_ssrc, uint16_t sequence) = 0;
  // Of video: the other side needs a picture that needs no other (PLI, FIR).
  virtual void OnPictureLoss(uint32_t media_ssrc) { static_cast<void>(media_ssrc); }
  // What the other side believes its network carries, in bits a second (REMB).
  virtual void OnEstimate(int64_t bps) { static_cast<void>(bps); }
};
// False: malformed; what came before the fault was heard.
bool ReadRtcp(Bytes packet, RtcpReader& reader);

// Builds one compound packet in a buffer of its own. What does not fit any more is left out.
class RtcpWriter {
 public:
  // Every compound packet begins with a report. `blocks`: at most 31.
  void AddSenderReport(const SenderReport& report, std::span<const ReportBlock> blocks);
  void AddReceiverReport(uint32_t own_ssrc, std::span<const ReportBlock> blocks);
  void AddCname(uint32_t own_ssrc, std::string_view cname);  // at most 64 bytes
  // `sequences` in rising order.
  void AddNack(uint32_t own_ssrc, uint32_t media_ssrc, std::span<const uint16_t> sequences);
  void AddPictureLoss(uint32_t own_ssrc, uint32_t media_ssrc);
  // Of a run of transport-wide sequence numbers that begins at `first`: when each came, in
  // microseconds of one clock; -1 = it did not. `count` numbers this feedback.
  void AddTransportFeedback(uint32_t own_ssrc, uint32_t media_ssrc, uint16_t first, uint8_t count,
                            std::span<const int64_t> arrivals_us);
  Bytes packet() const { return {buffer_.data(), size_}; }
  // The whole buffer, for a cipher that works in place and adds a trailer.
  std::span<uint8_t> buffer() { return buffer_; }

 private:
  uint8_t* Begin(uint8_t count, uint8_t type, size_t body_bytes);
  void PutBlocks(uint8_t* at, std::span<const ReportBlock> blocks);

  std::array<uint8_t, kMaxRtcpBytes + 64> buffer_{};
  size_t size_ = 0;
};

}  // namespace parley::webrtc
