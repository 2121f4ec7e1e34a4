// libs/webrtc without a network: messages, negotiation, and the streams of one connection.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "testing/matchers.h"
#include "webrtc/data_transport.h"
#include "webrtc/dtls.h"
#include "webrtc/early_data.h"
#include "webrtc/link.h"
#include "webrtc/negotiation.h"
#include "webrtc/offering.h"
#include "webrtc/receive_stream.h"
#include "webrtc/rtp.h"
#include "webrtc/send_stream.h"
#include "webrtc/srtp.h"
#include "webrtc/srtp_gcm.h"
#include "webrtc/stun.h"

namespace parley::webrtc {
namespace {

using namespace std::string_literals;  // NOLINT

constexpr TransactionId kTransaction = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

// ---- STUN ----

TEST(Stun, RequestIsReadAsItWasWritten) {
  std::array<uint8_t, kMaxStunBytes> buffer;
  const size_t size = WriteBindingRequest(kTransaction, "us:them", "secret", true, buffer);
  const auto message = ParseStun({buffer.data(), size});
  ASSERT_TRUE(message);
  EXPECT_EQ(message->kind, StunMessage::Kind::kBindingRequest);
  EXPECT_EQ(message->transaction, kTransaction);
  EXPECT_EQ(message->username, "us:them");
  EXPECT_TRUE(message->use_candidate);
  EXPECT_TRUE(message->controlling);
  EXPECT_TRUE(CheckIntegrity(*message, "secret"));
  EXPECT_FALSE(CheckIntegrity(*message, "Secret"));
}

TEST(Stun, AnyChangedBitIsNoticed) {
  std::array<uint8_t, kMaxStunBytes> buffer;
  const size_t size = WriteBindingRequest(kTransaction, "us:them", "secret", false, buffer);
  // The checksum at the end proves nothing by itself; it may be missing.
  for (size_t bit = 0; bit < (size - 8) * 8; ++bit) {
    std::vector<uint8_t> changed(buffer.begin(), buffer.begin() + static_cast<ptrdiff_t>(size));
    changed[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    const auto message = ParseStun(changed);
    EXPECT_FALSE(message && CheckIntegrity(*message, "secret")) << "bit " << bit;
  }
}

TEST(Stun, SuccessTellsTheAddressOfBothFamilies) {
  for (const char* ip : {"192.0.2.7", "2001:db8::7"}) {
    const Endpoint from = *Endpoint::Parse(ip, 49'152);
    std::array<uint8_t, kMaxStunBytes> buffer;
    const size_t size = WriteBindingSuccess(kTransaction, from, "secret", buffer);
    const auto message = ParseStun({buffer.data(), size});
    ASSERT_TRUE(message && message->mapped);
    EXPECT_EQ(message->mapped->Ip(), ip);
    EXPECT_EQ(message->mapped->port, 49'152);
    EXPECT_TRUE(CheckIntegrity(*message, "secret"));
  }
}

// RFC 5769, 2.1: the request of the RFC's own test vectors (its software name and long username
// included).
TEST(Stun, SampleOfTheRfcIsGenuine) {
  const std::vector<uint8_t> sample = {
      0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34,
      0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e,
      0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c, 0x69, 0x65, 0x6e, 0x74, 0x00, 0x24,
      0x00, 0x04, 0x6e, 0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1,
      0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68,
      0x36, 0x76, 0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c,
      0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5,
      0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf};
  const auto message = ParseStun(sample);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->username, "evtj:h6vY");
  EXPECT_TRUE(CheckIntegrity(*message, "VOkJxbRl1RmTxUk/WvJxBt"));
}

// ---- RTP and RTCP ----

TEST(Rtp, HeaderIsReadAsItWasWritten) {
  std::array<uint8_t, 64> buffer{};
  const size_t header = WriteRtpHeader({.payload_type = 111,
                                        .marker = true,
                                        .sequence = 65'535,
                                        .timestamp = 4'000'000'000,
                                        .ssrc = 0xdeadbeef,
                                        .audio_level_id = 3,
                                        .audio_level = 42},
                                       buffer);
  buffer[header] = 'x';
  const auto packet = ParseRtp({buffer.data(), header + 1}, {.audio_level = 3});
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->payload_type, 111);
  EXPECT_TRUE(packet->marker);
  EXPECT_EQ(packet->sequence, 65'535);
  EXPECT_EQ(packet->timestamp, 4'000'000'000);
  EXPECT_EQ(packet->ssrc, 0xdeadbeef);
  EXPECT_EQ(packet->audio_level, 42);
  EXPECT_EQ(Text(packet->payload), "x");
}

struct Heard final : RtcpReader {
  void OnSenderReport(const SenderReport& report) override { reports.push_back(report); }
  void OnReportBlock(const ReportBlock& block) override { blocks.push_back(block); }
  void OnNack(uint32_t, uint16_t sequence) override { nacks.push_back(sequence); }
  std::vector<SenderReport> reports;
  std::vector<ReportBlock> blocks;
  std::vector<uint16_t> nacks;
};

TEST(Rtcp, CompoundIsReadAsItWasWritten) {
  RtcpWriter writer;
  const ReportBlock block{.ssrc = 7, .fraction_lost = 64, .lost = -3, .highest_sequence = 70'000};
  writer.AddSenderReport({.ssrc = 9, .ntp = 0x0102030405060708, .packets = 5, .bytes = 500},
                         {&block, 1});
  writer.AddCname(9, "someone");
  const std::vector<uint16_t> lost = {65'534, 65'535, 3, 14, 40};
  writer.AddNack(9, 7, lost);
  Heard heard;
  ASSERT_TRUE(ReadRtcp(writer.packet(), heard));
  ASSERT_EQ(heard.reports.size(), 1);
  EXPECT_EQ(heard.reports[0].ntp, 0x0102030405060708);
  EXPECT_EQ(heard.reports[0].bytes, 500);
  ASSERT_EQ(heard.blocks.size(), 1);
  EXPECT_EQ(heard.blocks[0].lost, -3);
  EXPECT_EQ(heard.blocks[0].fraction_lost, 64);
  EXPECT_EQ(heard.nacks, lost);
}

// Two packets of the draft's shape: a small difference, a missing packet, a large one.
TEST(Rtcp, TransportFeedbackHasTheDraftsShape) {
  RtcpWriter writer;
  const std::vector<int64_t> arrivals = {128'000, -1, 129'000, 400'000};
  writer.AddTransportFeedback(1, 2, 500, 3, arrivals);
  const Bytes packet = writer.packet();
  ASSERT_EQ(packet.size(), 28);
  EXPECT_EQ(packet[0], 0x8f);
  EXPECT_EQ(packet[1], 205);
  EXPECT_EQ(Get16(packet.data() + 2), packet.size() / 4 - 1);
  EXPECT_EQ(Get16(packet.data() + 12), 500);
  EXPECT_EQ(Get16(packet.data() + 14), 4);
  EXPECT_EQ(Get32(packet.data() + 16), 2u << 8 | 3u);  // 128 ms, third feedback
  EXPECT_EQ(Get16(packet.data() + 20), 0b11'01'00'01'10'00'00'00);
  EXPECT_EQ(packet[22], 0);                             // the first, on the reference
  EXPECT_EQ(packet[23], 4);                             // 1 ms
  EXPECT_EQ(Get16(packet.data() + 24), 271'000 / 250);  // too much for a byte
}

// ---- streams ----

struct Collected final : ReceiveStream::Sink {
  void OnPacket(const AudioPacket& packet) override { order.emplace_back(packet.payload); }
  std::vector<std::string> order;
};

class ReceiveStreamTest : public ::testing::Test {
 protected:
  void Add(uint16_t sequence, int64_t now_us = 0) {
    const std::string payload = std::to_string(sequence);
    RtpPacket packet;
    packet.sequence = sequence;
    packet.timestamp = sequence * 960u;
    packet.payload = AsBytes(payload);
    stream_.Add(packet, now_us, collected_);
  }
  std::vector<uint16_t> Missing(int64_t now_us = 0) {
    std::array<uint16_t, kMaxNacked> numbers;
    const size_t count = stream_.Missing(now_us, &numbers);
    return {numbers.begin(), numbers.begin() + static_cast<ptrdiff_t>(count)};
  }
  ReceiveStream stream_{1};
  Collected collected_;
};

TEST_F(ReceiveStreamTest, OrderIsRestoredOverTheWrap) {
  for (const uint16_t sequence : {65'533, 65'535, 65'534, 1, 0, 2}) Add(sequence);
  EXPECT_EQ(collected_.order, (std::vector<std::string>{"65533", "65534", "65535", "0", "1", "2"}));
  EXPECT_EQ(stream_.figures().skipped, 0);
}

TEST_F(ReceiveStreamTest, MissingIsAskedForAgainAndThenGivenUp) {
  Add(10);
  Add(13);
  EXPECT_EQ(Missing(), (std::vector<uint16_t>{11, 12}));
  EXPECT_TRUE(Missing(ReceiveStream::kNackEveryUs - 1).empty());
  Add(12, 1'000);
  EXPECT_EQ(Missing(ReceiveStream::kNackEveryUs), (std::vector<uint16_t>{11}));
  EXPECT_EQ(collected_.order, std::vector<std::string>{"10"});
  stream_.Tick(ReceiveStream::kHoldUs - 1, collected_);
  EXPECT_EQ(collected_.order, std::vector<std::string>{"10"});
  stream_.Tick(ReceiveStream::kHoldUs, collected_);
  EXPECT_EQ(collected_.order, (std::vector<std::string>{"10", "12", "13"}));
  EXPECT_EQ(stream_.figures().skipped, 1);
  Add(11, ReceiveStream::kHoldUs);  // too late
  EXPECT_EQ(stream_.figures().duplicates, 1);
  EXPECT_EQ(collected_.order.size(), 3);
}

TEST_F(ReceiveStreamTest, WhatComesTooLateIsNotAskedFor) {
  const auto lose = [this](uint16_t sequence, int64_t now_us) {
    Add(sequence + 1, now_us);
    return Missing(now_us);
  };
  Add(9, 1'000'000);
  EXPECT_EQ(lose(10, 1'000'000), (std::vector<uint16_t>{10}));
  stream_.Tick(1'100'000, collected_);
  Add(10, 1'300'000);  // 300 ms: a slow network
  EXPECT_TRUE(lose(12, 1'400'000).empty());
  stream_.Tick(1'900'000, collected_);
  EXPECT_EQ(lose(14, 2'000'000), (std::vector<uint16_t>{14}));  // a try
  EXPECT_TRUE(Missing(2'000'000 + ReceiveStream::kNackEveryUs).empty());
  Add(14, 2'030'000);  // it is quicker now
  EXPECT_EQ(lose(16, 2'040'000), (std::vector<uint16_t>{16}));
  EXPECT_EQ(Missing(2'060'000), (std::vector<uint16_t>{16}));
  EXPECT_EQ(Missing(2'080'000), (std::vector<uint16_t>{16}));
  EXPECT_EQ(Missing(2'100'000),
            (std::vector<uint16_t>{16}));  // the rest of the hold and a round more
  EXPECT_TRUE(Missing(2'120'000).empty());
}

TEST_F(ReceiveStreamTest, DuplicatesAndLongGapsDoNoHarm) {
  Add(1);
  Add(1);
  Add(3);
  Add(3);
  Add(3 + ReceiveStream::kHeld);  // more than is held: what is missing is given up
  EXPECT_EQ(collected_.order, (std::vector<std::string>{"1", "3"}));
  Add(20'000);  // the sender began anew
  EXPECT_EQ(collected_.order.back(), "20000");
  Add(20'001);
  EXPECT_EQ(collected_.order.back(), "20001");
}

TEST_F(ReceiveStreamTest, RoomForPacketsThatWaitIsThereWhileItIsOfUse) {
  constexpr int64_t kKeep = ReceiveStream::kKeepRoomUs;
  Add(1);
  EXPECT_FALSE(stream_.has_room());
  Add(3);
  stream_.Report(kKeep * 2);
  EXPECT_TRUE(stream_.has_room()) << "2 is still waited for";
  Add(2, kKeep * 2);
  stream_.Report(kKeep * 3);
  EXPECT_TRUE(stream_.has_room());
  stream_.Report(kKeep * 3 + 1);
  EXPECT_FALSE(stream_.has_room());
  Add(2, kKeep * 4);  // once more, when nothing is known of it any more
  Add(5, kKeep * 4);
  Add(4, kKeep * 4);
  EXPECT_EQ(collected_.order, (std::vector<std::string>{"1", "2", "3", "4", "5"}));
}

TEST_F(ReceiveStreamTest, ReportsTellWhatWasLost) {
  for (uint16_t sequence = 0; sequence < 100; ++sequence) {
    if (sequence % 4 != 1) Add(sequence, sequence * 20'000);
    stream_.Tick(sequence * 20'000, collected_);
  }
  const ReportBlock block = stream_.Report(2'000'000);
  EXPECT_EQ(block.lost, 25);
  EXPECT_EQ(block.fraction_lost, 64);
  EXPECT_EQ(block.jitter, 0);
  EXPECT_EQ(stream_.Report(2'000'001).fraction_lost, 0);
}

TEST(SendStreamTest, KeepsWhatItSent) {
  SendStream stream(5, 111, 0, 65'535);
  for (int i = 0; i < 40; ++i) {
    std::array<uint8_t, 64> buffer{};
    const size_t header = stream.NextHeader(static_cast<uint32_t>(i) * 960, 127, buffer);
    EXPECT_EQ((buffer[1] & 0x80) != 0, i == 0);  // marked after a pause
    buffer[header] = static_cast<uint8_t>(i);
    stream.OnSent({buffer.data(), header + 1}, 1, i * 20'000);
  }
  EXPECT_EQ(stream.Kept(38).back(), 39);
  EXPECT_EQ(stream.Kept(7).back(), 8);
  EXPECT_TRUE(stream.Kept(6).empty());
  const SenderReport report = stream.Report(39 * 20'000 + 10'000, 0);
  EXPECT_EQ(report.packets, 40);
  EXPECT_EQ(report.rtp_timestamp, 39 * 960 + 480);
}

TEST(SendStreamTest, KeepsPacketsOfAnySizeUpToItsMost) {
  SendStream stream(5, 111, 0, 100);
  std::vector<std::vector<uint8_t>> sent;
  for (size_t i = 0; i < SendStream::kKept; ++i) {  // each larger than the ones before
    sent.emplace_back(i * 13 + 1, static_cast<uint8_t>(i));
    stream.OnSent(sent.back(), 1, 0);
  }
  ASSERT_GT(sent.back().size(), SendStream::kKeptBytes);
  for (size_t i = 0; i < SendStream::kKept; ++i) {
    const Bytes kept = stream.Kept(static_cast<uint16_t>(100 + i));
    const bool fits = sent[i].size() <= SendStream::kKeptBytes;
    EXPECT_EQ(std::vector<uint8_t>(kept.begin(), kept.end()),
              fits ? sent[i] : std::vector<uint8_t>())
        << i;
  }
}

// ---- session descriptions ----

std::string Offer(std::string_view sections, std::string_view ufrag = "abcd") {
  return fmt::format(
      "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-ufrag:{}\r\n"
      "a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 ab:cd\r\na=setup:actpass\r\n{}",
      ufrag, sections);
}
std::string Audio(std::string_view mid, std::string_view direction, std::string_view more = {}) {
  return fmt::format(
      "m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na={}\r\n"
      "a=rtpmap:63 red/48000/2\r\na=rtpmap:111 opus/48000/2\r\n"
      "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n{}",
      mid, direction, more);
}
constexpr auto kData =
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\na=sctp-port:5000\r\n";
constexpr auto kVideo =
    "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:v\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n";

class NegotiationTest : public ::testing::Test {
 protected:
  absl::StatusOr<Negotiation::Answer> Accept(const std::string& offer) {
    PARLEY_ASSIGN_OR_RETURN(const Sdp sdp, ParseSdp(offer));
    return negotiation_.Accept(sdp);
  }
  Negotiation negotiation_{"12:34", {*Endpoint::Parse("192.0.2.1", 7882)}};
};

TEST_F(NegotiationTest, MicrophoneDataAndFreeSectionsAreAnswered) {
  negotiation_.AddTrack(4, "TR_agent", "PA_agent|TR_agent");
  EXPECT_EQ(negotiation_.MissingSections(), 1);
  const auto answer = Accept(Offer(Audio("0", "sendonly", "a=msid:- mic\r\na=ssrc:77 cname:x\r\n") +
                                   Audio("1", "recvonly") + kVideo + kData));
  PARLEY_ASSERT_OK(answer.status());
  ASSERT_EQ(answer->plan.receive.size(), 1);
  EXPECT_EQ(answer->plan.receive[0].track_id, "mic");
  EXPECT_EQ(answer->plan.receive[0].payload_type, 111);
  EXPECT_EQ(answer->plan.receive[0].ssrcs, std::vector<uint32_t>{77});
  ASSERT_EQ(answer->plan.send.size(), 1);
  EXPECT_EQ(answer->plan.send[0].track, 4);
  EXPECT_EQ(answer->plan.sctp_port, 5000);
  EXPECT_EQ(answer->plan.fingerprint, "AB:CD");
  EXPECT_EQ(answer->mid_to_track, (std::map<std::string, std::string>{{"1", "TR_agent"}}));
  EXPECT_FALSE(negotiation_.NeedsOffer());

  const auto reread = ParseSdp(answer->sdp);
  PARLEY_ASSERT_OK(reread.status());
  ASSERT_EQ(reread->sections.size(), 4);
  EXPECT_EQ(reread->sections[0].direction, Direction::kRecvOnly);
  EXPECT_EQ(reread->sections[0].codecs.size(), 1);  // no RED
  EXPECT_EQ(reread->sections[1].direction, Direction::kSendOnly);
  EXPECT_EQ(reread->sections[1].msid_track, "TR_agent");
  EXPECT_EQ(reread->sections[1].ssrcs, std::vector<uint32_t>{answer->plan.send[0].ssrc});
  EXPECT_EQ(reread->sections[2].direction, Direction::kInactive);
  EXPECT_EQ(reread->sections[2].port, 9);  // not rejected
  EXPECT_EQ(reread->sections[3].sctp_port, 5000);
  for (const SdpSection& section : reread->sections) EXPECT_EQ(section.setup, "passive");
  EXPECT_NE(answer->sdp.find("a=ice-lite"), std::string::npos);
  EXPECT_NE(answer->sdp.find("a=group:BUNDLE 0 1 v d"), std::string::npos);
  EXPECT_NE(answer->sdp.find("192.0.2.1 7882 typ host"), std::string::npos);
}

TEST_F(NegotiationTest, TrackGivesItsSectionBackBeforeAnotherTakesIt) {
  const std::string offer = Offer(Audio("0", "recvonly"));
  negotiation_.AddTrack(1, "TR_1", "PA_1|TR_1");
  PARLEY_ASSERT_OK(Accept(offer).status());
  negotiation_.RemoveTrack(1);
  negotiation_.AddTrack(2, "TR_2", "PA_2|TR_2");
  EXPECT_TRUE(negotiation_.NeedsOffer());
  auto answer = Accept(offer);
  PARLEY_ASSERT_OK(answer.status());
  EXPECT_TRUE(answer->plan.send.empty());  // inactive once, so that the client notices
  EXPECT_TRUE(negotiation_.NeedsOffer());
  EXPECT_EQ(negotiation_.MissingSections(), 0);
  answer = Accept(offer);
  PARLEY_ASSERT_OK(answer.status());
  ASSERT_EQ(answer->plan.send.size(), 1);
  EXPECT_EQ(answer->plan.send[0].track, 2);
}

TEST_F(NegotiationTest, NewCredentialsOfTheirsBringNewOnesOfOurs) {
  const auto first = Accept(Offer(Audio("0", "recvonly")));
  const auto again = Accept(Offer(Audio("0", "recvonly")));
  const auto restart = Accept(Offer(Audio("0", "recvonly"), "efgh"));
  PARLEY_ASSERT_OK(restart.status());
  EXPECT_EQ(first->plan.local_ufrag, again->plan.local_ufrag);
  EXPECT_NE(first->plan.local_ufrag, restart->plan.local_ufrag);
  EXPECT_NE(first->plan.local_pwd, restart->plan.local_pwd);
}

// ---- the other way round ----

class OfferingTest : public ::testing::Test {
 protected:
  // As a client answers: it takes everything, or says `audio` of the audio sections.
  absl::StatusOr<Plan> Answer(const Offering::Offer& offer, std::string_view audio = "recvonly") {
    const auto offered = ParseSdp(offer.sdp);
    EXPECT_TRUE(offered.ok()) << offered.status();
    std::string sections;
    for (const SdpSection& section : offered->sections) {
      sections += section.kind == "application" ? "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"
                                                  "\r\na=mid:0\r\na=sctp-port:5000\r\n"
                                                : Audio(section.mid, audio);
    }
    return Accept(sections, offer.id);
  }
  absl::StatusOr<Plan> Accept(std::string_view sections, uint32_t id) {
    std::string text = Offer(sections);
    text.replace(text.find("actpass"), 7, "active");
    PARLEY_ASSIGN_OR_RETURN(const Sdp sdp, ParseSdp(text));
    return offering_.Accept(sdp, id);
  }
  Offering offering_{"12:34", {*Endpoint::Parse("192.0.2.1", 7882)}, {{"_reliable", true, {}}}};
};

TEST_F(OfferingTest, ChannelsFirstThenTracksAsTheyCome) {
  auto offer = offering_.Next();
  ASSERT_TRUE(offer);
  auto sdp = ParseSdp(offer->sdp);
  PARLEY_ASSERT_OK(sdp.status());
  ASSERT_EQ(sdp->sections.size(), 1);
  EXPECT_EQ(sdp->sections[0].kind, "application");
  EXPECT_EQ(sdp->sections[0].setup, "actpass");
  EXPECT_NE(offer->sdp.find("192.0.2.1 7882 typ host"), std::string::npos);
  offering_.AddTrack(7, "TR_a", "PA_a|TR_a");
  EXPECT_FALSE(offering_.Next()) << "one at a time";
  auto plan = Answer(*offer);
  PARLEY_ASSERT_OK(plan.status());
  EXPECT_TRUE(plan->send.empty()) << "the track was not in that offer";
  EXPECT_EQ(plan->channels[0].label, "_reliable");
  EXPECT_EQ(plan->sctp_port, 5000);
  EXPECT_EQ(plan->fingerprint, "AB:CD");
  offer = offering_.Next();
  ASSERT_TRUE(offer);
  EXPECT_EQ(offer->mid_to_track, (std::map<std::string, std::string>{{"1", "TR_a"}}));
  plan = Answer(*offer);
  PARLEY_ASSERT_OK(plan.status());
  ASSERT_EQ(plan->send.size(), 1);
  EXPECT_EQ(plan->send[0].track, 7);
  EXPECT_EQ(plan->send[0].audio_level_id, 1);
  sdp = ParseSdp(offer->sdp);
  EXPECT_EQ(sdp->sections[1].ssrcs, std::vector<uint32_t>{plan->send[0].ssrc});
  EXPECT_EQ(sdp->sections[1].msid_stream, "PA_a|TR_a");
  EXPECT_EQ(sdp->sections[1].direction, Direction::kSendOnly);
  EXPECT_FALSE(offering_.Next());
}

TEST_F(OfferingTest, SectionOfAnEndedTrackIsUsedAgain) {
  offering_.AddTrack(1, "TR_1", "s");
  PARLEY_ASSERT_OK(Answer(*offering_.Next()).status());
  offering_.RemoveTrack(1);
  auto offer = offering_.Next();
  ASSERT_TRUE(offer);
  EXPECT_EQ(ParseSdp(offer->sdp)->sections[1].direction, Direction::kInactive);
  offering_.AddTrack(2, "TR_2", "s");  // before the answer to that
  auto plan = Answer(*offer, "inactive");
  PARLEY_ASSERT_OK(plan.status());
  EXPECT_TRUE(plan->send.empty());
  offer = offering_.Next();
  ASSERT_TRUE(offer);
  EXPECT_EQ(ParseSdp(offer->sdp)->sections.size(), 2);
  EXPECT_EQ(offer->mid_to_track.at("1"), "TR_2");
}

TEST_F(OfferingTest, RestartBringsNewCredentialsEvenWithoutTheLastAnswer) {
  const auto first = offering_.Next();
  offering_.RestartIce();
  const auto second = offering_.Next();
  ASSERT_TRUE(second);
  EXPECT_NE(ParseSdp(first->sdp)->sections[0].ice_ufrag,
            ParseSdp(second->sdp)->sections[0].ice_ufrag);
  EXPECT_EQ(Answer(*first).status().code(), absl::StatusCode::kNotFound);
  const auto plan = Answer(*second);
  PARLEY_ASSERT_OK(plan.status());
  EXPECT_EQ(plan->local_ufrag, ParseSdp(second->sdp)->sections[0].ice_ufrag);
}

TEST_F(OfferingTest, AnswersThatDoNotFitAreRefused) {
  EXPECT_EQ(Accept("", 0).status().code(), absl::StatusCode::kNotFound) << "nothing was offered";
  const auto offer = offering_.Next();
  const std::string data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n";
  for (const std::string& sections :
       {std::string(), Audio("0", "recvonly"), data + Audio("1", "recvonly"),
        data + "a=setup:passive\r\n", data + "a=fingerprint:sha-1 AB\r\n",
        data + "a=ice-ufrag:a b\r\n", "m=application 0 UDP/DTLS/SCTP x\r\na=mid:0\r\n"s}) {
    EXPECT_EQ(Accept(sections, offer->id).status().code(), absl::StatusCode::kInvalidArgument)
        << sections;
  }
  PARLEY_ASSERT_OK(Answer(*offer).status());
  offering_.AddTrack(1, "TR_1", "s");
  const auto next = offering_.Next();
  EXPECT_FALSE(
      Accept(data + "a=fingerprint:sha-256 CD:EF\r\n" + Audio("1", "recvonly"), next->id).ok())
      << "another certificate";
}

// ---- how well speech comes through ----

TEST(Link, OpinionFallsWithLossDelayAndJitter) {
  const LinkFigures good{.loss = 0, .round_trip = absl::Milliseconds(30)};
  EXPECT_GT(MeanOpinion(good), 4.3);
  float before = MeanOpinion(good);
  for (const double loss : {0.01, 0.05, 0.1, 0.2, 0.5, 1.0}) {
    const float now = MeanOpinion({.loss = loss, .round_trip = absl::Milliseconds(30)});
    EXPECT_LT(now, before) << loss;
    EXPECT_GE(now, 1);
    before = now;
  }
  EXPECT_LT(MeanOpinion({.round_trip = absl::Milliseconds(800)}), 3.7);
  EXPECT_LT(MeanOpinion({.jitter = absl::Milliseconds(300)}), 3.1);
  EXPECT_EQ(MeanOpinion({.loss = 7, .round_trip = absl::Hours(1)}), 1);
}

TEST_F(NegotiationTest, OffersThatCannotBeServedAreRefused) {
  EXPECT_FALSE(Accept("hello").ok());
  EXPECT_FALSE(Accept(std::string(kMaxSdpBytes + 1, 'v')).ok());
  EXPECT_FALSE(Accept(Offer("")).ok());
  std::string many = Offer("");
  for (size_t i = 0; i <= kMaxSections; ++i) many += Audio(std::to_string(i), "recvonly");
  EXPECT_FALSE(Accept(many).ok());
  EXPECT_FALSE(Accept(Offer(Audio("has space", "recvonly"))).ok());
  std::string offer = Offer(Audio("0", "recvonly"));
  const auto with = [&](std::string_view what, std::string_view instead) {
    std::string changed = offer;
    changed.replace(changed.find(what), what.size(), instead);
    return Accept(changed).status().code();
  };
  EXPECT_EQ(with("sha-256", "sha-1"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(with("actpass", "passive"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(with("ice-pwd", "ice-xyz"), absl::StatusCode::kInvalidArgument);
  PARLEY_EXPECT_OK(Accept(offer).status());
  EXPECT_EQ(with("ab:cd", "ab:ce"), absl::StatusCode::kInvalidArgument);      // another certificate
  EXPECT_EQ(with("m=audio", "m=video"), absl::StatusCode::kInvalidArgument);  // another kind
  EXPECT_FALSE(Accept(Offer("")).ok());                                       // fewer sections
}

// ---- DTLS, SRTP, data channels ----

struct Pair {
  Pair() : Pair(true) {}
  explicit Pair(bool right_fingerprint) {
    const auto a = *DtlsContext::Create();
    const auto b = *DtlsContext::Create();
    server = std::make_unique<DtlsTransport>(
        a, DtlsTransport::Role::kServer, right_fingerprint ? b->fingerprint() : a->fingerprint(),
        [this](Bytes d) { to_client.emplace_back(Text(d)); },
        [this](Bytes p) {
          at_server += Text(p);
          EXPECT_TRUE(!echoes || server->Write(p));
        });
    client = std::make_unique<DtlsTransport>(
        b, DtlsTransport::Role::kClient, a->fingerprint(),
        [this](Bytes d) { to_server.emplace_back(Text(d)); },
        [this](Bytes p) { at_client += Text(p); });
    client->Start();
  }
  void Run() {
    while (status.ok() && (!to_client.empty() || !to_server.empty())) {
      for (const auto& d : std::exchange(to_server, {})) {
        if (status.ok()) status = server->Take(AsBytes(d));
      }
      for (const auto& d : std::exchange(to_client, {})) {
        if (client != nullptr) (void)client->Take(AsBytes(d));
      }
    }
  }
  std::vector<std::string> to_client, to_server;
  std::string at_client, at_server;
  bool echoes = false;  // the server, while it reads
  absl::Status status;
  std::unique_ptr<DtlsTransport> server, client;
};

TEST(Dtls, BothSidesAgreeOnKeysAndTalk) {
  Pair pair;
  pair.Run();
  ASSERT_TRUE(pair.server->connected() && pair.client->connected());
  EXPECT_EQ(pair.server->keys().profile, SrtpProfile::kAeadAes128Gcm);
  EXPECT_EQ(pair.server->keys().send, pair.client->keys().receive);
  EXPECT_EQ(pair.server->keys().receive, pair.client->keys().send);
  EXPECT_NE(pair.server->keys().send, pair.server->keys().receive);
  EXPECT_TRUE(pair.client->Write(AsBytes("hello")));
  pair.Run();
  EXPECT_EQ(pair.at_server, "hello");
}

TEST(Dtls, AnswersWhileItReadsPassesOverNonsenseAndHearsGoodbye) {
  Pair pair;
  pair.Run();
  pair.echoes = true;
  EXPECT_TRUE(pair.client->Write(AsBytes("one ")));
  EXPECT_TRUE(pair.client->Write(AsBytes("two")));
  pair.to_server.insert(pair.to_server.begin() + 1,
                        std::string("\x17\xfe\xfd\0\1\0\0\0\0\0\0\0\3xyz", 16));
  pair.to_server.emplace_back("\x16nonsense");
  pair.Run();
  PARLEY_EXPECT_OK(pair.status);
  EXPECT_EQ(pair.at_client, "one two");
  pair.client.reset();
  pair.Run();
  EXPECT_EQ(pair.status.code(), absl::StatusCode::kAborted);
}

TEST(Dtls, AnotherCertificateThanAnnouncedIsRefused) {
  Pair pair(false);
  pair.Run();
  EXPECT_EQ(pair.status.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_FALSE(pair.server->connected());
}

TEST(SrtpTest, ForgedAndReplayedPacketsAreRefused) {
  Pair pair;
  pair.Run();
  const auto sender = *Srtp::Create(pair.client->keys());
  const auto receiver = *Srtp::Create(pair.server->keys());
  std::array<uint8_t, 200> packet{};
  const size_t header = WriteRtpHeader({.payload_type = 111, .sequence = 1, .ssrc = 5}, packet);
  const size_t size = sender->ProtectRtp(packet, header + 20);
  ASSERT_GT(size, header + 20);
  std::array<uint8_t, 200> forged = packet;
  forged[header + 3] ^= 1;
  EXPECT_EQ(receiver->UnprotectRtp(std::span(forged).first(size)), 0);
  std::array<uint8_t, 200> copy = packet;
  EXPECT_EQ(receiver->UnprotectRtp(std::span(copy).first(size)), header + 20);
  copy = packet;
  EXPECT_EQ(receiver->UnprotectRtp(std::span(copy).first(size)), 0);  // replayed
}

// libsrtp runs its own vectors over it, the NSS one's too, before it takes it.
TEST(SrtpTest, OpenSslsCipherStandsInForTheLibrarys) {
  Pair pair;
  pair.Run();
  ASSERT_TRUE(Srtp::Create(pair.client->keys()).ok());
  EXPECT_TRUE(UseOpenSslGcm());
}

TEST(SrtpTest, PacketsOfAllSizesComeThrough) {
  Pair pair;
  pair.Run();
  const auto sender = *Srtp::Create(pair.client->keys());
  const auto receiver = *Srtp::Create(pair.server->keys());
  for (uint16_t i = 1; i < 300; ++i) {
    std::array<uint8_t, 400> packet{};
    const size_t header = WriteRtpHeader({.payload_type = 111, .sequence = i, .ssrc = 5}, packet);
    for (size_t at = 0; at < i; ++at) packet[header + at] = static_cast<uint8_t>(at * 7 + i);
    const auto plain = packet;
    const size_t size = sender->ProtectRtp(packet, header + i);
    ASSERT_EQ(size, header + i + 16) << i;
    if (i > 16) {
      ASSERT_NE(std::memcmp(&packet[header], &plain[header], i), 0) << i;
    }
    ASSERT_EQ(receiver->UnprotectRtp(std::span(packet).first(size)), header + i);
    ASSERT_EQ(std::memcmp(packet.data(), plain.data(), header + i), 0) << i;
  }
}

TEST(EarlyDataTest, KeepsAWhileAndNotWithoutBound) {
  EarlyData early;
  early.Add("a", AsBytes("first"), 0);
  early.Add("b", AsBytes("second"), 5'000'000);
  early.Tick(EarlyData::kKeptUs + 1);
  const auto kept = early.Take();
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(kept[0].bytes, "second");
  EXPECT_EQ(kept[0].label, "b");
  EXPECT_TRUE(early.Take().empty());
  const std::string large(EarlyData::kMostBytes / 2 + 1, 'x');
  early.Add("a", AsBytes(large), 0);
  early.Add("a", AsBytes(large), 0);  // too much
  early.Add("a", AsBytes("small"), 0);
  EXPECT_EQ(early.Take().size(), 2u);
  early.Add("a", AsBytes(large), 0);  // what was taken makes room
  early.Tick(EarlyData::kKeptUs + 1);
  early.Add("a", AsBytes(large), EarlyData::kKeptUs);  // … and what was forgotten
  EXPECT_EQ(early.Take().size(), 1u);
}

TEST(DataChannels, OpenMessageIsReadAsItWasWritten) {
  const DataChannel lossy{2, "_lossy", false, 0};
  const auto read = ParseChannelOpen(AsBytes(WriteChannelOpen(lossy)));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->label, "_lossy");
  EXPECT_FALSE(read->ordered);
  EXPECT_EQ(read->max_retransmits, 0);
  EXPECT_FALSE(ParseChannelOpen(AsBytes(WriteChannelOpen(lossy)).first(14)));
}

TEST(DataChannels, MessagesOfAllSizesComeThroughBothWays) {
  event::Loop loop;
  std::vector<std::string> to_a, to_b, at_a, at_b;
  DataTransport a(loop, false,
                  {[&](Bytes p) { to_b.emplace_back(Text(p)); }, [](const DataChannel&) {},
                   [&](const DataChannel&, Bytes m) { at_a.emplace_back(Text(m)); }});
  DataTransport b(loop, true,
                  {[&](Bytes p) { to_a.emplace_back(Text(p)); }, [](const DataChannel&) {},
                   [&](const DataChannel&, Bytes m) { at_b.emplace_back(Text(m)); }});
  PARLEY_ASSERT_OK(a.Start(5000));
  PARLEY_ASSERT_OK(b.Start(5000));
  PARLEY_ASSERT_OK(b.Open("_reliable", true, std::nullopt));
  const std::string large(64 << 10, 'l');
  PARLEY_ASSERT_OK(b.Send("_reliable", AsBytes("small")));
  PARLEY_ASSERT_OK(b.Send("_reliable", AsBytes(large)));
  EXPECT_EQ(a.Send("_reliable", AsBytes("early")).code(), absl::StatusCode::kNotFound);
  const auto run = [&](const auto& done) {
    const int64_t until_us = loop.NowMicros() + 5'000'000;
    while (!done() && loop.NowMicros() < until_us) {
      for (const auto& p : std::exchange(to_a, {})) a.Take(AsBytes(p));
      for (const auto& p : std::exchange(to_b, {})) b.Take(AsBytes(p));
      a.Tick();
      b.Tick();
    }
  };
  run([&] { return at_a.size() == 2; });
  EXPECT_EQ(at_a, (std::vector<std::string>{"small", large}));
  PARLEY_ASSERT_OK(a.Send("_reliable", AsBytes(large)));
  run([&] { return at_b.size() == 1; });
  EXPECT_EQ(at_b, std::vector<std::string>{large});
  EXPECT_FALSE(a.failed() || b.failed());
}

// Both roles against each other: what one side offers the other answers, whoever has full ICE.
TEST(ClientRoleTest, OffersToAndAnswersAServer) {
  const std::vector<Endpoint> here = {*Endpoint::Parse("192.0.2.1", 7882)};
  Offering client("AA", IceCredentials{"client", "pwd-of-the-client"}, {{"_reliable", true, {}}});
  Negotiation server("BB", here);
  client.AddTrack(1, "cid", "cid");
  auto offer = client.Next();
  ASSERT_TRUE(offer);
  EXPECT_EQ(offer->sdp.find("a=ice-lite"), std::string::npos);
  EXPECT_EQ(offer->sdp.find("a=candidate"), std::string::npos);
  EXPECT_NE(offer->sdp.find("a=ice-ufrag:client"), std::string::npos);
  auto sdp = ParseSdp(offer->sdp);
  PARLEY_ASSERT_OK(sdp);
  auto answer = server.Accept(*sdp);
  PARLEY_ASSERT_OK(answer);
  EXPECT_EQ(answer->plan.receive.at(0).track_id, "cid");
  EXPECT_FALSE(answer->plan.dtls_client);
  sdp = ParseSdp(answer->sdp);
  PARLEY_ASSERT_OK(sdp);
  EXPECT_TRUE(sdp->ice_lite);
  EXPECT_THAT(sdp->sections[0].candidates, ::testing::SizeIs(1));
  auto plan = client.Accept(*sdp, offer->id);
  PARLEY_ASSERT_OK(plan);
  EXPECT_TRUE(plan->dtls_client);  // the server is passive
  EXPECT_EQ(plan->send.at(0).track, 1);

  // New credentials of the client's agent are in its next offer.
  client.RestartIce({"again", "pwd-of-the-next"});
  offer = client.Next();
  ASSERT_TRUE(offer);
  EXPECT_NE(offer->sdp.find("a=ice-ufrag:again"), std::string::npos);

  Offering from_server("BB", here, {});
  from_server.AddTrack(0, "TR_a", "PA_a|TR_a");
  Negotiation hearing("AA", IceCredentials{"client", "pwd-of-the-client"});
  sdp = ParseSdp(from_server.Next()->sdp);
  PARLEY_ASSERT_OK(sdp);
  auto heard = hearing.Accept(*sdp);
  PARLEY_ASSERT_OK(heard);
  EXPECT_TRUE(heard->plan.dtls_client);
  EXPECT_EQ(heard->plan.receive.at(0).track_id, "TR_a");
  EXPECT_EQ(heard->sdp.find("a=ice-lite"), std::string::npos);
  sdp = ParseSdp(heard->sdp);
  PARLEY_ASSERT_OK(sdp);
  EXPECT_EQ(sdp->sections[0].setup, "active");
  plan = from_server.Accept(*sdp, 0);
  PARLEY_ASSERT_OK(plan);
  EXPECT_FALSE(plan->dtls_client);
  EXPECT_EQ(plan->send.size(), 1);
}

}  // namespace
}  // namespace parley::webrtc
