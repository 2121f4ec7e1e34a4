// Video: which packets begin a picture, which go on under which number, which layer a listener
// gets; and the streams of ICE over TCP. No network.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cstring>
#include <map>
#include <set>

#include "testing/matchers.h"
#include "webrtc/layer_chooser.h"
#include "webrtc/negotiation.h"
#include "webrtc/offering.h"
#include "webrtc/tcp_port.h"
#include "webrtc/video_receiver.h"
#include "webrtc/video_sender.h"

namespace parley::webrtc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMs = 1'000;
constexpr int64_t kSecond = 1'000'000;

bool Key(VideoCodec codec, std::vector<uint8_t> bytes) { return BeginsKeyPicture(codec, bytes); }

TEST(VideoPacketTest, PicturesThatNeedNoOtherAreSeen) {
  EXPECT_TRUE(Key(VideoCodec::kVp8, {0x10, 0x00}));
  EXPECT_FALSE(Key(VideoCodec::kVp8, {0x10, 0x01})) << "needs another";
  EXPECT_FALSE(Key(VideoCodec::kVp8, {0x00, 0x00})) << "the middle of one";
  EXPECT_FALSE(Key(VideoCodec::kVp8, {0x11, 0x00})) << "its second partition";
  // With a picture number of two bytes, TL0PICIDX and TID.
  EXPECT_TRUE(Key(VideoCodec::kVp8, {0x90, 0xe0, 0x81, 0x23, 0x07, 0x20, 0x02}));
  EXPECT_FALSE(Key(VideoCodec::kVp8, {0x90, 0xe0, 0x81, 0x23, 0x07, 0x20}));
  EXPECT_TRUE(Key(VideoCodec::kVp9, {0x08}));
  EXPECT_FALSE(Key(VideoCodec::kVp9, {0x48}));
  EXPECT_TRUE(Key(VideoCodec::kVp9, {0xa8, 0x81, 0x23, 0x00}));
  EXPECT_FALSE(Key(VideoCodec::kVp9, {0xa8, 0x81, 0x23, 0x02})) << "a higher spatial layer";
  EXPECT_TRUE(Key(VideoCodec::kH264, {0x67, 0x42}));
  EXPECT_TRUE(Key(VideoCodec::kH264, {0x78, 0, 1, 0x67, 0, 1, 0x68}));
  EXPECT_TRUE(Key(VideoCodec::kH264, {0x7c, 0x85}));
  EXPECT_FALSE(Key(VideoCodec::kH264, {0x7c, 0x05}));
  EXPECT_FALSE(Key(VideoCodec::kH264, {0x41}));
  for (const VideoCodec codec : {VideoCodec::kVp8, VideoCodec::kVp9, VideoCodec::kH264}) {
    EXPECT_FALSE(Key(codec, {}));
  }
}

RtpPacket Packet(uint16_t sequence, std::string_view payload = "x") {
  RtpPacket packet;
  packet.sequence = sequence;
  packet.timestamp = sequence * 3'000u;
  packet.payload = AsBytes(payload);
  return packet;
}

TEST(VideoReceiverTest, PaddingLeavesNoGapAndWhatIsLostIsAskedFor) {
  VideoReceiver receiver(1);
  EXPECT_EQ(receiver.Add(Packet(65'534), 0), 65'534);
  EXPECT_EQ(receiver.Add(Packet(65'535, ""), 0), std::nullopt);
  EXPECT_EQ(receiver.Add(Packet(0), 0), 65'535) << "the number of the one that carried nothing";
  EXPECT_EQ(receiver.Add(Packet(0), 0), std::nullopt) << "once";
  EXPECT_EQ(receiver.Add(Packet(3), 0), 2);
  std::array<uint16_t, kMaxNacked> missing;
  ASSERT_EQ(receiver.Missing(0, &missing), 2);
  EXPECT_EQ(missing[0], 1);
  EXPECT_EQ(missing[1], 2);
  EXPECT_EQ(receiver.Missing(10 * kMs, &missing), 0) << "it was asked for a moment ago";
  EXPECT_EQ(receiver.Missing(40 * kMs, &missing), 2);
  EXPECT_EQ(receiver.Add(Packet(2), 50 * kMs), 1);
  EXPECT_EQ(receiver.Missing(80 * kMs, &missing), 1);
  const ReportBlock report = receiver.Report(100 * kMs);
  EXPECT_EQ(report.lost, 1);
  EXPECT_EQ(report.fraction_lost, 256 / 6);
  for (int i = 0; i < 20; ++i) (void)receiver.Missing(i * kSecond, &missing);
  EXPECT_EQ(receiver.Missing(30 * kSecond, &missing), 0) << "given up";
}

VideoPacket Picture(uint8_t layer, uint16_t sequence, bool key = false) {
  return {.timestamp = sequence * 3'000u + layer * 77'777u,
          .sequence = sequence,
          .layer = layer,
          .marker = true,
          .key = key,
          .payload = "0123456789"};
}

class VideoSenderTest : public ::testing::Test {
 protected:
  // What goes out of it; nullopt: nothing.
  std::optional<RtpPacket> Send(const VideoPacket& packet, int64_t now_us) {
    const size_t size = sender_.NextHeader(packet, now_us, header_);
    if (size == 0) return std::nullopt;
    sender_.OnSent(Bytes(header_).first(size), packet.payload.size());
    return ParseRtp(Bytes(header_).first(size), {});
  }
  VideoSender sender_{{.track = 1, .ssrc = 7, .payload_type = 96, .video = true}, 100};
  std::array<uint8_t, 64> header_{};
};

TEST_F(VideoSenderTest, BeginsWithAKeyPictureAndChangesLayersWithoutASeam) {
  EXPECT_FALSE(Send(Picture(0, 10), kSecond));
  EXPECT_EQ(sender_.Tick(kSecond), 0) << "a key picture of the lowest layer is wanted";
  auto sent = Send(Picture(0, 11, true), kSecond + kMs);
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->sequence, 100);
  EXPECT_EQ(sent->ssrc, 7);
  EXPECT_TRUE(sent->marker);
  const uint32_t begin = sent->timestamp;
  EXPECT_FALSE(Send(Picture(0, 10), kSecond + kMs)) << "from before";
  EXPECT_EQ(sender_.Tick(kSecond + kMs), -1);
  // Both layers for a while; nothing is lost, so the higher one is tried.
  uint16_t number = 12;
  int wanted = -1;
  int64_t now_us = kSecond + 2 * kMs;
  uint16_t last = 100;
  for (; wanted < 0 && now_us < 10 * kSecond; now_us += 33 * kMs, ++number) {
    sent = Send(Picture(0, number), now_us);
    ASSERT_TRUE(sent);
    EXPECT_EQ(sent->sequence, ++last);
    EXPECT_FALSE(Send(Picture(1, number), now_us));
    wanted = sender_.Tick(now_us);
  }
  EXPECT_EQ(wanted, 1);
  EXPECT_GE(now_us, kSecond + LayerChooser::kFirstWaitUs);
  EXPECT_FALSE(Send(Picture(1, number), now_us)) << "not in the middle of its pictures";
  sent = Send(Picture(0, number), now_us);
  ASSERT_TRUE(sent) << "the old one goes on meanwhile";
  EXPECT_EQ(sent->sequence, ++last);
  const uint32_t before = sent->timestamp;
  sent = Send(Picture(1, 5'000, true), now_us + 10 * kMs);
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->sequence, ++last);
  EXPECT_EQ(sent->timestamp, before + 900);
  EXPECT_FALSE(Send(Picture(0, number + 1), now_us));
  // A gap stays one, so that the listener asks; what comes late finds its place.
  EXPECT_EQ(Send(Picture(1, 5'002), now_us)->sequence, last + 2);
  EXPECT_EQ(Send(Picture(1, 5'001), now_us)->sequence, last + 1);
  EXPECT_FALSE(sender_.Kept(static_cast<uint16_t>(last + 1)).empty());
  EXPECT_TRUE(sender_.Kept(static_cast<uint16_t>(last + 9)).empty());
  EXPECT_FALSE(sender_.Kept(last).empty());
  EXPECT_TRUE(sender_.Kept(static_cast<uint16_t>(last - 1)).empty()) << "of the layer of before";
  EXPECT_GT(sent->timestamp - begin, 90'000u);
}

TEST_F(VideoSenderTest, WhatIsAskedForAgainAndAgainGoesOutOnceInARoundTrip) {
  ASSERT_TRUE(Send(Picture(0, 1, true), kSecond));
  const auto again = [&](int64_t at_ms) { return !sender_.Again(100, at_ms * kMs).empty(); };
  EXPECT_TRUE(again(1'001));
  EXPECT_FALSE(again(1'050));
  EXPECT_TRUE(again(1'051)) << "50 ms while no round trip is known";
  ReportBlock block;  // it took 300 ms to be answered
  block.last_sr = 1;
  sender_.OnReport(block, 1 + 65'536 * 3 / 10, kSecond);
  EXPECT_FALSE(again(1'340));
  EXPECT_TRUE(again(1'352));
  EXPECT_TRUE(sender_.Again(101, 1'352 * kMs).empty()) << "never sent";
}

TEST_F(VideoSenderTest, NothingIsSentWhileNobodyLooks) {
  ASSERT_TRUE(Send(Picture(0, 1, true), kSecond));
  sender_.SetWish(-1);
  EXPECT_EQ(sender_.Tick(kSecond + 2), -1);
  EXPECT_FALSE(Send(Picture(0, 2), kSecond + 3));
  sender_.SetWish(2);
  EXPECT_FALSE(Send(Picture(0, 3), kSecond + 4));
  EXPECT_EQ(sender_.Tick(kSecond + 5), 0);
  const auto sent = Send(Picture(0, 4, true), kSecond + 6);
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->sequence, 101) << "no gap";
}

// From one who films to one who looks, over a path that loses every seventh packet: what the one
// asks for the other has kept as it went out, down to the bytes.
TEST_F(VideoSenderTest, WhatAListenerMissesIsKeptAsItWentOut) {
  VideoReceiver listener(7);
  std::map<uint16_t, std::string> out;  // by number
  std::map<uint16_t, std::string> in;
  const auto arrives = [&](Bytes packet, int64_t now_us) {
    const auto parsed = ParseRtp(packet, {});
    ASSERT_TRUE(parsed);
    if (listener.Add(*parsed, now_us)) in[parsed->sequence] = Text(packet);
  };
  int resent = 0;
  const auto ask_again = [&](int64_t now_us) {
    std::array<uint16_t, kMaxNacked> missing;
    const size_t count = listener.Missing(now_us, &missing);
    for (size_t i = 0; i < count; ++i) {
      const Bytes kept = sender_.Kept(missing[i]);
      ASSERT_FALSE(kept.empty()) << missing[i];
      if (++resent % 5 != 0) arrives(kept, now_us);  // what is sent again may be lost, too
    }
  };
  int64_t now_us = kSecond;
  for (uint16_t number = 0; number < 600; ++number, now_us += 10 * kMs) {
    VideoPacket packet = Picture(0, number, number == 0);
    const std::string content = fmt::format("{}", number);
    packet.payload = content;
    std::array<uint8_t, 64> bytes{};
    const size_t header = sender_.NextHeader(packet, now_us, bytes);
    ASSERT_GT(header, 0);
    std::memcpy(bytes.data() + header, content.data(), content.size());
    const auto sent = Bytes(bytes).first(header + content.size());
    sender_.OnSent(sent, content.size());
    out[static_cast<uint16_t>(100 + number)] = Text(sent);
    if (number % 7 != 3) arrives(sent, now_us);
    ask_again(now_us);
  }
  for (int i = 0; i < 5; ++i) ask_again(now_us += 40 * kMs);
  EXPECT_GT(resent, 600 / 7);
  EXPECT_EQ(in, out);
  EXPECT_TRUE(sender_.Kept(100).empty()) << "not for ever";
}

// A network that carries so much, tried by a chooser once a second: what it sends and when.
struct Network {
  int64_t bps;
  LayerChooser::Rates rates{150'000, 500'000, 1'700'000};
};

int Second(LayerChooser& chooser, const Network& network, int64_t second) {
  const int64_t begin_us = second * kSecond;
  int layer = -1;
  for (int64_t at = begin_us; at < begin_us + kSecond; at += 100 * kMs) {
    layer = chooser.Choose(network.rates, at);
  }
  const int64_t sent = network.rates.at(static_cast<size_t>(layer));
  const int64_t lost = std::max<int64_t>(sent - network.bps, 0) * 256 / sent;
  chooser.OnLoss(static_cast<uint8_t>(lost), begin_us + kSecond);
  return layer;
}

TEST(LayerChooserTest, TheHighestThatTheNetworkCarriesAndBackSoonAfter) {
  LayerChooser chooser;
  int64_t second = 1;
  Network network{.bps = 10'000'000};
  EXPECT_EQ(Second(chooser, network, second++), 0) << "begins low";
  for (; second < 12; ++second) (void)Second(chooser, network, second);
  EXPECT_EQ(Second(chooser, network, second++), 2);
  network.bps = 300'000;  // a gate
  std::map<int, int> seconds;
  for (int i = 0; i < 60; ++i) ++seconds[Second(chooser, network, second++)];
  EXPECT_EQ(seconds[2], 1) << "given up after the first report";
  EXPECT_GT(seconds[0], 36) << "tries of the next one are rare";
  network.bps = 10'000'000;
  int waited = 0;
  while (Second(chooser, network, second++) == 0) ++waited;
  EXPECT_LE(waited, 8);
  for (int i = 0; i < 6; ++i) (void)Second(chooser, network, second++);
  EXPECT_EQ(Second(chooser, network, second++), 2);
}

TEST(LayerChooserTest, WishesEstimatesAndLayersThatStopAreFollowed) {
  LayerChooser chooser;
  const LayerChooser::Rates rates{150'000, 500'000, 1'700'000};
  int64_t now_us = kSecond;
  const auto run = [&](const LayerChooser::Rates& given, int64_t seconds) {
    int layer = -1;
    for (int i = 0; i < seconds * 10; ++i) layer = chooser.Choose(given, now_us += 100 * kMs);
    return layer;
  };
  EXPECT_EQ(run({0, 0, 0}, 1), -1);
  EXPECT_EQ(run(rates, 20), 2);
  chooser.SetWish(1);
  EXPECT_EQ(run(rates, 1), 1);
  chooser.SetWish(2);
  EXPECT_EQ(run(rates, 10), 2);
  EXPECT_EQ(run({150'000, 500'000, 0}, 1), 1) << "its sender stopped the highest";
  EXPECT_EQ(run({150'000, 0, 1'700'000}, 10), 2);
  chooser.OnEstimate(900'000, now_us);
  EXPECT_EQ(run(rates, 1), 2) << "it is low, but it does not fall";
  chooser.OnEstimate(700'000, now_us);
  EXPECT_EQ(run(rates, 1), 1);
  EXPECT_EQ(run({0, 0, 1'700'000}, 1), 2) << "there is no other";
}

TEST(RtcpVideoTest, PicturesAndEstimatesAreAskedAndTold) {
  struct Reader final : RtcpReader {
    void OnSenderReport(const SenderReport&) override {}
    void OnReportBlock(const ReportBlock&) override {}
    void OnNack(uint32_t, uint16_t) override {}
    void OnPictureLoss(uint32_t ssrc) override { pictures.insert(ssrc); }
    void OnEstimate(int64_t bps) override { estimate = bps; }
    std::set<uint32_t> pictures;
    int64_t estimate = 0;
  } reader;
  RtcpWriter writer;
  writer.AddReceiverReport(1, {});
  writer.AddPictureLoss(1, 42);
  ASSERT_TRUE(ReadRtcp(writer.packet(), reader));
  EXPECT_THAT(reader.pictures, ElementsAre(42));
  // FIR for 43; REMB of 3 << 17 bits a second.
  const std::vector<uint8_t> full = {0x84, 206, 0, 4, 0, 0,  0, 1, 0, 0,
                                     0,    0,   0, 0, 0, 43, 9, 0, 0, 0};
  ASSERT_TRUE(ReadRtcp(full, reader));
  EXPECT_TRUE(reader.pictures.contains(43));
  const std::vector<uint8_t> estimate = {0x8f, 206, 0,   5,   0, 0,       0, 1, 0, 0, 0, 0,
                                         'R',  'E', 'M', 'B', 1, 17 << 2, 0, 3, 0, 0, 0, 42};
  ASSERT_TRUE(ReadRtcp(estimate, reader));
  EXPECT_EQ(reader.estimate, 3 << 17);
}

std::string Offer(const std::string& sections) {
  return "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n"
         "a=fingerprint:sha-256 AB:CD\r\na=setup:actpass\r\n" +
         sections;
}
std::string Video(std::string_view mid, std::string_view more) {
  return fmt::format(
      "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 102 104\r\na=mid:{}\r\n"
      "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n"
      "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
      "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"
      "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
      "a=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=0\r\n"
      "a=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=0;profile-level-id=42e01f\r\n"
      "a=rtpmap:104 H264/90000\r\na=fmtp:104 packetization-mode=1;profile-level-id=42e01f\r\n{}",
      mid, more);
}

TEST(VideoNegotiationTest, LayersAreTakenAndTracksGoOutInTheirOwnCodec) {
  Negotiation negotiation("12:34", {*Endpoint::Parse("192.0.2.1", 7882)});
  negotiation.AddTrack(1, "TR_voice", "PA_x|TR_voice");
  negotiation.AddTrack(2, "TR_screen", "PA_x|TR_screen", "h264");
  EXPECT_EQ(negotiation.MissingSections(), 1);
  EXPECT_EQ(negotiation.MissingSections(true), 1);
  const auto sdp =
      ParseSdp(Offer(Video("0",
                           "a=sendonly\r\na=msid:- cam\r\na=rid:q send\r\na=rid:h send\r\n"
                           "a=simulcast:send q;~h\r\n") +
                     Video("1", "a=recvonly\r\n") + Video("2", "a=recvonly\r\n")));
  PARLEY_ASSERT_OK(sdp.status());
  const auto answer = negotiation.Accept(*sdp);
  PARLEY_ASSERT_OK(answer.status());
  ASSERT_EQ(answer->plan.receive.size(), 1);
  const ReceivePlan& receive = answer->plan.receive[0];
  EXPECT_EQ(receive.video, VideoCodec::kVp8);
  EXPECT_EQ(receive.payload_type, 96);
  EXPECT_THAT(receive.rids, ElementsAre("q", "h"));
  EXPECT_EQ(receive.extensions.rid, 10);
  EXPECT_EQ(receive.extensions.mid, 4);
  ASSERT_EQ(answer->plan.send.size(), 1);
  EXPECT_EQ(answer->plan.send[0].track, 2);
  EXPECT_EQ(answer->plan.send[0].payload_type, 104) << "in fragments, as browsers send it";
  EXPECT_EQ(answer->plan.send[0].abs_send_time_id, 2);
  EXPECT_TRUE(answer->plan.send[0].video);
  EXPECT_EQ(answer->mid_to_track.at("1"), "TR_screen");
  EXPECT_THAT(answer->sdp, HasSubstr("a=rid:q recv\r\na=rid:h recv\r\na=simulcast:recv q;h\r\n"));
  EXPECT_THAT(answer->sdp, HasSubstr("a=rtcp-fb:96 nack pli"));
  EXPECT_THAT(answer->sdp, HasSubstr("a=rtcp-fb:104 goog-remb"));
  EXPECT_THAT(answer->sdp, Not(HasSubstr("rtx")));
  EXPECT_EQ(negotiation.MissingSections(), 1) << "a section of video is none for a voice";
  EXPECT_EQ(negotiation.MissingSections(true), 0);
}

TEST(VideoNegotiationTest, ATrackIsTakenInTheCodecThatOthersAreToldOf) {
  const auto taken = [](const std::string& expected) -> std::optional<VideoCodec> {
    Negotiation negotiation("12:34", {*Endpoint::Parse("192.0.2.1", 7882)});
    if (!expected.empty()) negotiation.ExpectVideo("cam", expected);
    const auto answer =
        negotiation.Accept(*ParseSdp(Offer(Video("0", "a=sendonly\r\na=msid:- cam\r\n"))));
    PARLEY_EXPECT_OK(answer.status());
    return answer->plan.receive.empty() ? std::nullopt : answer->plan.receive[0].video;
  };
  EXPECT_EQ(taken("vp9"), VideoCodec::kVp9);
  EXPECT_EQ(taken("h264"), VideoCodec::kH264);
  EXPECT_EQ(taken(""), VideoCodec::kVp8) << "the first that is carried";
  EXPECT_EQ(taken("av1"), std::nullopt) << "nothing passes under another's name";
}

TEST(VideoNegotiationTest, ServerOffersVideoAndKeepsKindsApart) {
  Offering offering("12:34", {*Endpoint::Parse("192.0.2.1", 7882)}, {});
  offering.AddTrack(1, "TR_cam", "PA_x|TR_cam", "vp9");
  const auto offer = offering.Next();
  ASSERT_TRUE(offer);
  const auto sdp = ParseSdp(offer->sdp);
  PARLEY_ASSERT_OK(sdp.status());
  ASSERT_EQ(sdp->sections.size(), 2);
  EXPECT_EQ(sdp->sections[1].codecs.at(0).name, "vp9");
  const auto answer = ParseSdp(
      "v=0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=fingerprint:sha-256 AB:CD\r\na=setup:active\r\n"
      "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n"
      "m=video 9 UDP/TLS/RTP/SAVPF 98\r\na=mid:1\r\na=recvonly\r\na=rtpmap:98 VP9/90000\r\n"
      "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n");
  PARLEY_ASSERT_OK(answer.status());
  const auto plan = offering.Accept(*answer, 1);
  PARLEY_ASSERT_OK(plan.status());
  ASSERT_EQ(plan->send.size(), 1);
  EXPECT_TRUE(plan->send[0].video);
  EXPECT_EQ(plan->send[0].payload_type, 98);
  EXPECT_EQ(plan->send[0].abs_send_time_id, 2);
  offering.RemoveTrack(1);
  offering.AddTrack(2, "TR_mic", "PA_x|TR_mic");
  const auto next = offering.Next();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->mid_to_track.count("2"), 1) << "a section of its own";
}

TEST(TcpFramesTest, DatagramsAreFoundHoweverTheyAreCut) {
  const std::string stream = std::string("\0\3abc\0\1d", 8);
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    TcpFrames frames;
    std::vector<std::string> found;
    const auto sink = [&](std::span<uint8_t> bytes) { found.emplace_back(Text(bytes)); };
    EXPECT_TRUE(frames.Take(AsBytes(stream.substr(0, cut)), sink));
    EXPECT_TRUE(frames.Take(AsBytes(stream.substr(cut)), sink));
    EXPECT_THAT(found, ElementsAre("abc", "d"));
  }
  TcpFrames frames;
  EXPECT_FALSE(frames.Take(AsBytes(std::string_view("\x08\x01", 2)), [](auto) {}));
  TcpFrames empty;
  EXPECT_FALSE(empty.Take(AsBytes(std::string_view("\0\0", 2)), [](auto) {}));
}

TEST(EndpointTest, NamesHaveAPortOrNot) {
  const auto name = [](std::string_view text) {
    const auto endpoint = Endpoint::ParseName(text, 7882);
    return endpoint ? endpoint->Name() : std::string();
  };
  EXPECT_EQ(name("192.0.2.1"), "192.0.2.1:7882");
  EXPECT_EQ(name("192.0.2.1:5000"), "192.0.2.1:5000");
  EXPECT_EQ(name("2001:db8::1"), "[2001:db8::1]:7882");
  EXPECT_EQ(name("[2001:db8::1]:5000"), "[2001:db8::1]:5000");
  for (const char* bad : {"", "host", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:70000", "[::1]",
                          "192.0.2.1:5x", "2001:db8::1:5000x"}) {
    EXPECT_EQ(name(bad), "") << bad;
  }
}

}  // namespace
}  // namespace parley::webrtc
