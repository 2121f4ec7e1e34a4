// Video and what clients encrypt among themselves: two WebRTC clients of our own, and a participant
// who is neither, in a real room server.
#include <algorithm>
#include <set>

#include "rtc_fixture.h"
#include "testing/udp_gate.h"

namespace parley {
namespace {

constexpr uint32_t kLow = RtcClient::kSsrc + 1 + 'q';
constexpr uint32_t kHigh = RtcClient::kSsrc + 1 + 'h';

class RtcVideoTest : public RtcTest {
 protected:
  // `gates`: its media goes through one more of these.
  std::unique_ptr<Signalling> Enter(
      RtcClient& client, const std::string& identity, bool camera,
      std::vector<std::unique_ptr<testing::UdpGate>>* gates = nullptr) {
    lk::JoinRequest join;
    join.mutable_connection_settings()->set_auto_subscribe(true);
    if (camera) {
      lk::AddTrackRequest& track = *join.add_add_track_requests();
      track.set_cid("cam");
      track.set_type(lk::VIDEO);
      track.set_source(lk::CAMERA);
      track.set_width(640);
      track.set_height(360);
      lk::SimulcastCodec& codec = *track.add_simulcast_codecs();
      codec.set_codec("vp8");
      for (const auto& [quality, width] : {std::pair(lk::LOW, 320u), std::pair(lk::HIGH, 640u)}) {
        lk::VideoLayer& layer = *codec.add_layers();
        layer.set_quality(quality);
        layer.set_width(width);
        layer.set_height(width * 9 / 16);
      }
    }
    join.mutable_publisher_offer()->set_sdp(client.VideoOffer("cam"));
    join.mutable_publisher_offer()->set_id(1);
    auto signalling =
        std::make_unique<Signalling>(server(), OneConnection(Token(Joiner(identity)), join));
    joined_ = signalling->Next(lk::SignalResponse::kJoin).join();
    const auto answer = signalling->Next(lk::SignalResponse::kAnswer).answer();
    mids_ = {answer.mid_to_track_id().begin(), answer.mid_to_track_id().end()};
    if (gates != nullptr) {
      auto gate = testing::UdpGate::Start(RtcClient::PortOf(answer.sdp()), gates->size() + 1);
      EXPECT_TRUE(gate.ok()) << gate.status();
      client.via = (*gate)->port();
      gates->push_back(*std::move(gate));
    }
    client.TakeAnswer(answer.sdp());
    EXPECT_TRUE(client.Run([&] { return client.connected(); }));
    return signalling;
  }

  // Ann films: both layers, 30 pictures a second, key pictures as they are asked for. Until `done`.
  bool Film(RtcClient& ann, RtcClient& bob, const std::function<bool()>& done,
            absl::Duration timeout = absl::Seconds(20)) {
    const int64_t until_us = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(timeout);
    int64_t next_us = 0;
    while (!done()) {
      const int64_t now_us = Clock::Real().MonotonicMicros();
      if (now_us > until_us) return false;
      if (now_us >= next_us) {
        next_us = now_us + 33'000;
        for (const auto& [rid, ssrc] : {std::pair("q", kLow), std::pair("h", kHigh)}) {
          const bool key = ann.pictures_wanted[ssrc] > answered_[ssrc];
          answered_[ssrc] = ann.pictures_wanted[ssrc];
          ann.SendVideo(rid, picture_, rid, key);
        }
        ++picture_;
      }
      ann.Step();
      bob.Step();
    }
    return true;
  }
  static std::string Last(const RtcClient& client) {
    return client.seen.empty() ? std::string() : client.seen.back().content;
  }

  std::map<std::string, std::string> mids_;
  std::map<uint32_t, int> answered_;
  uint16_t picture_ = 0;
};

TEST_F(RtcVideoTest, ListenersGetTheLayerThatTheirNetworkCarries) {
  RtcClient ann, bob;
  const auto from_ann = Enter(ann, "ann", true);
  const auto track = from_ann->Next(lk::SignalResponse::kTrackPublished).track_published().track();
  EXPECT_EQ(track.type(), lk::VIDEO);
  EXPECT_EQ(track.mime_type(), "video/VP8");
  EXPECT_TRUE(track.simulcast());
  ASSERT_EQ(track.layers_size(), 2);
  EXPECT_EQ(track.layers(1).width(), 640);
  // Who is no WebRTC client sees that there is a track, and is not given it.
  Peer carl = Join(Joiner("carl"));
  const auto from_bob = Enter(bob, "bob", false);
  EXPECT_EQ(mids_, (std::map<std::string, std::string>{{"1", track.sid()}}));
  ASSERT_EQ(joined_.other_participants_size(), 2);

  EXPECT_TRUE(Film(ann, bob, [&] { return Last(bob) == "q"; })) << "begins with the lower layer";
  EXPECT_GT(ann.pictures_wanted[kLow], 0);
  EXPECT_TRUE(Film(ann, bob, [&] { return Last(bob) == "h"; })) << "nothing is lost: the higher";
  const uint32_t ssrc = bob.seen.front().ssrc;
  for (size_t i = 1; i < bob.seen.size(); ++i) {
    EXPECT_EQ(bob.seen[i].ssrc, ssrc);
    EXPECT_EQ(static_cast<uint16_t>(bob.seen[i].sequence - bob.seen[i - 1].sequence), 1);
    EXPECT_LT(bob.seen[i].timestamp - bob.seen[i - 1].timestamp, 90'000u) << "times rise";
  }
  // Half of it is lost now.
  int64_t next_us = 0;
  EXPECT_TRUE(Film(ann, bob, [&] {
    if (const int64_t now_us = Clock::Real().MonotonicMicros(); now_us >= next_us) {
      next_us = now_us + 300'000;
      bob.ReportLoss(ssrc, 128);
    }
    return Last(bob) == "q";
  }));
  EXPECT_TRUE(Film(ann, bob, [&] { return Last(bob) == "h"; }))
      << "higher again when nothing is lost any more";
  // A picture was lost for good.
  const int before = ann.pictures_wanted[kHigh];
  next_us = 0;
  EXPECT_TRUE(Film(ann, bob, [&] {
    if (const int64_t now_us = Clock::Real().MonotonicMicros(); now_us >= next_us) {
      next_us = now_us + 300'000;  // as clients do: one that comes too soon is passed over
      bob.AskForPicture(ssrc);
    }
    return ann.pictures_wanted[kHigh] > before;
  }));
  // Nobody looks.
  lk::SignalRequest settings;
  settings.mutable_track_setting()->add_track_sids(track.sid());
  settings.mutable_track_setting()->set_disabled(true);
  from_bob->Send(settings);
  size_t seen = 0;
  int64_t quiet_since_us = 0;
  EXPECT_TRUE(Film(ann, bob, [&] {
    const int64_t now_us = Clock::Real().MonotonicMicros();
    if (std::exchange(seen, bob.seen.size()) != bob.seen.size()) quiet_since_us = now_us;
    return now_us - quiet_since_us > 300'000;
  }));
  settings.mutable_track_setting()->set_disabled(false);
  settings.mutable_track_setting()->set_quality(lk::LOW);
  from_bob->Send(settings);
  EXPECT_TRUE(Film(ann, bob, [&] { return bob.seen.size() > seen; }));
  EXPECT_EQ(Last(bob), "q");
  EXPECT_FALSE(carl.Next(
      [](const auto& m) {
        return m.has_audio() || (m.has_event() && m.event().has_subscription_started());
      },
      absl::Milliseconds(100)));
}

// Each of the two lives behind a network of its own that loses a tenth of all packets, either way:
// those of the pictures and those that ask for them again.
TEST_F(RtcVideoTest, LostPacketsOfPicturesAreAskedForAndSentAgainOnBothWays) {
  constexpr uint16_t kPictures = 400;
  std::vector<std::unique_ptr<testing::UdpGate>> gates;
  RtcClient ann, bob;
  bob.asks_again = true;
  const auto from_ann = Enter(ann, "ann", true, &gates);
  const auto from_bob = Enter(bob, "bob", false, &gates);
  EXPECT_TRUE(Film(ann, bob, [&] { return !bob.seen.empty(); })) << "the first key picture";
  const size_t before = bob.seen.size();
  for (const auto& gate : gates) gate->Set({.loss = 0.1});
  const uint16_t first = picture_;
  for (; picture_ < first + kPictures; ++picture_) {
    ann.SendVideo("q", picture_, fmt::format("picture {}", picture_), false);
    for (int i = 0; i < 3; ++i) {
      ann.Step();
      bob.Step();
    }
  }
  for (const auto& gate : gates) gate->Set({});
  std::set<std::string> contents;
  const auto all_seen = [&] {
    for (const auto& seen : bob.seen) contents.insert(seen.content);
    return std::ranges::count_if(
               contents, [](const auto& one) { return one.starts_with("picture "); }) == kPictures;
  };
  // The last of them need something behind them that shows the gap.
  const absl::Time until = absl::Now() + absl::Seconds(20);
  while (!all_seen() && absl::Now() < until) {
    ann.SendVideo("q", picture_++, "more", false);
    for (int i = 0; i < 20; ++i) {
      ann.Step();
      bob.Step();
    }
  }
  EXPECT_TRUE(all_seen());
  EXPECT_GT(ann.video_asked_again, kPictures / 20) << "the server asks the one who films";
  EXPECT_GT(bob.asked_for, kPictures / 20) << "and is asked by who looks";
  std::set<uint16_t> numbers;
  for (const auto& seen : bob.seen) numbers.insert(seen.sequence);
  EXPECT_EQ(numbers.size(), bob.seen.size()) << "each once";
  EXPECT_EQ(static_cast<uint16_t>(*numbers.rbegin() - *numbers.begin()) + 1u, numbers.size())
      << "and none is missing";
  fmt::print("{} pictures, {} asked for again by the server, {} by the viewer, {} seen before\n",
             kPictures, ann.video_asked_again, bob.asked_for, before);
}

TEST_F(RtcVideoTest, MayOnlyBePublishedWithItsSourceAndOverWebRtc) {
  auth::Claims claims = Joiner("ann");
  claims.video.can_publish_sources = {"microphone"};
  RtcClient ann;
  const auto signalling = Connect(ann, claims);
  lk::SignalRequest request;
  request.mutable_add_track()->set_cid("cam");
  request.mutable_add_track()->set_type(lk::VIDEO);
  request.mutable_add_track()->set_source(lk::CAMERA);
  signalling->Send(request);
  EXPECT_EQ(signalling->Next(lk::SignalResponse::kRequestResponse).request_response().reason(),
            lk::RequestResponse::NOT_ALLOWED);
  Peer bob = Join(Joiner("bob"));
  bob.Publish("cam", pb::CODEC_OPUS, pb::TRACK_KIND_VIDEO);
  EXPECT_EQ(bob.Event(pb::RoomEvent::kResult).result().code(),
            static_cast<int>(absl::StatusCode::kUnimplemented));
}

TEST_F(RtcVideoTest, WhatIsEncryptedPassesUntouchedToThoseWhoMayHaveTheKey) {
  RtcClient ann, bob;
  Peer carl = Join(Joiner("carl"));
  lk::JoinRequest join = JoinRequest(ann);
  join.mutable_add_track_requests(0)->set_encryption(lk::GCM);
  auto from_ann = std::make_unique<Signalling>(server(), OneConnection(Token(Joiner("ann")), join));
  ann.TakeAnswer(from_ann->Next(lk::SignalResponse::kAnswer).answer().sdp());
  EXPECT_EQ(
      from_ann->Next(lk::SignalResponse::kTrackPublished).track_published().track().encryption(),
      lk::GCM);
  ASSERT_TRUE(ann.Run([&] { return ann.connected(); }));
  const auto from_bob = Connect(bob, "bob");
  ASSERT_EQ(joined_.other_participants_size(), 2);
  for (const auto& other : joined_.other_participants()) {
    if (other.identity() != "ann") continue;
    EXPECT_EQ(other.tracks(0).encryption(), lk::GCM);
  }
  const std::string secret("\x00\x01 any bytes \xff\xfe\x80", 16);
  lk::DataPacket packet;
  packet.set_encrypted_packet(secret);
  ann.SendData(packet.SerializeAsString());
  lk::DataPacket plain;
  plain.mutable_user()->set_payload("for everybody");
  ann.SendData(plain.SerializeAsString());
  const absl::Time until = absl::Now() + absl::Seconds(20);
  for (uint16_t i = 0; bob.messages.size() < 2 && absl::Now() < until; ++i) {
    ann.SendAudio(i, secret);
    ann.Step();
    bob.Run([&] { return bob.messages.size() == 2; }, absl::Milliseconds(20));
  }
  ASSERT_EQ(bob.messages.size(), 2);
  lk::DataPacket got;
  ASSERT_TRUE(got.ParseFromString(bob.messages[0]));
  EXPECT_EQ(got.encrypted_packet(), secret);
  EXPECT_EQ(got.participant_identity(), "ann");
  ASSERT_TRUE(bob.Run([&] { return !bob.heard.empty(); }));
  EXPECT_EQ(bob.heard.front(), secret) << "frames pass as they are";
  // Carl cannot have the key: he hears of what is plain alone.
  const auto data = carl.Event(pb::RoomEvent::kData).data();
  EXPECT_EQ(data.payload(), "for everybody");
  EXPECT_FALSE(carl.Next([](const auto& m) { return m.has_audio(); }, absl::Milliseconds(100)));
}

}  // namespace
}  // namespace parley
