// Participants of LiveKit's kind in a real room server: signalling frames, DTLS, SRTP and data
// channels over a real UDP port, beside participants on gRPC.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "rtc_fixture.h"

namespace parley {
namespace {

TEST_F(RtcTest, PersonAndListenerHearEachOther) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  EXPECT_EQ(joined_.room().name(), "lobby");
  EXPECT_EQ(joined_.participant().identity(), "ann");
  Peer bob = Join(Joiner("bob"));
  const std::string heard_sid =
      bob.Event(pb::RoomEvent::kSubscriptionStarted).subscription_started().track().sid();
  EXPECT_EQ(heard_sid, track_sid_);
  EXPECT_EQ(signalling->Next(lk::SignalResponse::kTrackSubscribed).track_subscribed().track_sid(),
            track_sid_);
  for (uint16_t i = 0; i < 20; ++i) client.SendAudio(i, fmt::format("from ann {}", i));
  for (uint16_t i = 0; i < 20; ++i) {
    const pb::AudioFrame frame = bob.Audio();
    EXPECT_EQ(frame.data(), fmt::format("from ann {}", i));
    EXPECT_EQ(frame.timestamp(), i * 960u);
    EXPECT_EQ(frame.level(), 17);
  }

  bob.Publish("bobs");
  const std::string sid = bob.PublishedSid();
  Renegotiate(client, *signalling);
  int sent = 0;
  EXPECT_TRUE(client.Run([&] {
    bob.SendAudio(sid, "from bob", static_cast<uint32_t>(960 * sent++));
    return client.heard.size() >= 20 && client.reports > 0;
  }));
  EXPECT_EQ(client.heard.front(), "from bob");
}

// Has this participant been told that somebody hears its track?
bool Told(Peer& peer, absl::Duration wait) {
  return peer.Next([](const auto& message) { return message.event().has_track_subscribed(); }, wait)
      .has_value();
}

// Or the first words of an agent would go to somebody whose client does not know of it yet.
TEST_F(RtcTest, WhoSpeaksIsToldOfAListenerOnceItHears) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  bob.Publish("bobs");
  const std::string sid = bob.PublishedSid();
  signalling->Next(lk::SignalResponse::kMediaSectionsRequirement);  // the room has subscribed ann
  client.SendAudio(0, "after that");
  EXPECT_EQ(bob.Audio().data(), "after that");
  EXPECT_FALSE(Told(bob, absl::ZeroDuration())) << "ann's client has no section for bob yet";
  Offer(client, *signalling, 2);
  EXPECT_TRUE(Told(bob, absl::Seconds(5)));
  bob.SendAudio(sid, "first word");
  EXPECT_TRUE(client.Run([&] { return !client.heard.empty(); }));
  EXPECT_EQ(client.heard.front(), "first word");
}

TEST_F(RtcTest, WhoComesToATrackHearsItOnceKeysAreAgreedOn) {
  Peer bob = Join(Joiner("bob"));
  bob.Publish("bobs");
  const std::string sid = bob.PublishedSid();
  RtcClient client;
  Signalling signalling(server(), OneConnection(Token(Joiner("ann")), JoinRequest(client)));
  const auto answer = signalling.Next(lk::SignalResponse::kAnswer).answer();
  EXPECT_EQ(answer.mid_to_track_id().count("1"), 1);
  lk::SignalRequest mute;
  mute.mutable_mute()->set_sid(
      signalling.Next(lk::SignalResponse::kTrackPublished).track_published().track().sid());
  mute.mutable_mute()->set_muted(true);
  signalling.Send(mute);
  bob.Event(pb::RoomEvent::kTrackMuted);
  EXPECT_FALSE(Told(bob, absl::ZeroDuration())) << "ann's client has the answer, but no keys";
  client.TakeAnswer(answer.sdp());
  EXPECT_TRUE(client.Run([&] { return client.connected(); }));
  EXPECT_TRUE(Told(bob, absl::Seconds(5)));
  bob.SendAudio(sid, "first word");
  EXPECT_TRUE(client.Run([&] { return !client.heard.empty(); }));
  EXPECT_EQ(client.heard.front(), "first word");
}

TEST_F(RtcTest, WhatIsLostIsAskedForAndComesInOrder) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  EXPECT_TRUE(LostOnesComeInOrder(client, bob, 10, {4, 6}));
  EXPECT_GE(client.asked_again.size(), 2);
}

// More than 4,500 a second, as of many people: so many are read by the clock, and one by one again
// later. Each twenty are awaited: of a listener that is 25 behind, a room server drops what is
// late.
TEST_F(RtcTest, ManyPacketsAreReadTogetherAndAllAreHeard) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  uint16_t next = 0;
  const auto speak = [&](int packets) {
    const uint16_t first = next;
    for (; next < first + packets; ++next) client.SendAudio(next, std::to_string(next));
    for (uint16_t i = first; i < next; ++i) EXPECT_EQ(bob.Audio().data(), std::to_string(i));
  };
  for (int i = 0; i < 100 && !HasFailure(); ++i) speak(20);
  client.Run([] { return false; }, absl::Milliseconds(250));
  for (int i = 0; i < 20 && !HasFailure(); ++i) speak(1);
}

TEST_F(RtcTest, DataAndTextGoBothWays) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  lk::DataPacket packet;
  packet.mutable_user()->set_payload("hello");
  packet.mutable_user()->set_topic("greetings");
  client.SendData(packet.SerializeAsString());
  lk::DataPacket header, chunk, trailer;
  header.mutable_stream_header()->set_stream_id("s1");
  header.mutable_stream_header()->set_topic("lk.chat");
  header.mutable_stream_header()->mutable_text_header();
  chunk.mutable_stream_chunk()->set_stream_id("s1");
  chunk.mutable_stream_chunk()->set_content("how are you");
  trailer.mutable_stream_trailer()->set_stream_id("s1");
  for (const auto& one : {header, chunk, trailer}) client.SendData(one.SerializeAsString());
  const auto data = Heard(bob, client, pb::RoomEvent::kData).data();
  EXPECT_EQ(data.payload(), "hello");
  EXPECT_EQ(data.topic(), "greetings");
  EXPECT_EQ(data.from_identity(), "ann");
  const auto text = Heard(bob, client, pb::RoomEvent::kText).text();
  EXPECT_EQ(text.text(), "how are you");
  EXPECT_EQ(text.topic(), "lk.chat");
  EXPECT_TRUE(Heard(bob, client, pb::RoomEvent::kText).text().final());

  pb::ParticipantCommand command;
  command.mutable_text()->set_stream_id("s2");
  command.mutable_text()->set_topic("lk.chat");
  command.mutable_text()->set_text("well");
  command.mutable_text()->set_final(true);
  bob.Command(command);
  ASSERT_TRUE(client.Run([&] { return client.messages.size() == 3; }));
  std::vector<lk::DataPacket> packets(3);
  for (size_t i = 0; i < 3; ++i) ASSERT_TRUE(packets[i].ParseFromString(client.messages[i]));
  EXPECT_EQ(packets[0].stream_header().topic(), "lk.chat");
  EXPECT_EQ(packets[0].participant_identity(), "bob");
  EXPECT_EQ(packets[1].stream_chunk().content(), "well");
  EXPECT_EQ(packets[2].stream_trailer().stream_id(), "s2");
}

TEST_F(RtcTest, KeysOfATelephoneGoBothWays) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  const auto press = [&](const std::string& digit, uint32_t code) {
    lk::DataPacket packet;
    packet.mutable_sip_dtmf()->set_digit(digit);
    packet.mutable_sip_dtmf()->set_code(code);
    client.SendData(packet.SerializeAsString());
  };
  press("", 10);   // some say the code alone
  press("x", 99);  // no key
  press("##", 0);
  press("5", 5);
  const auto star = Heard(bob, client, pb::RoomEvent::kData).data();
  EXPECT_EQ(star.payload(), "*");
  EXPECT_EQ(star.from_identity(), "ann");
  EXPECT_EQ(Heard(bob, client, pb::RoomEvent::kData).data().payload(), "5");

  pb::ParticipantCommand command;
  command.mutable_data()->set_topic("parley.dtmf");
  command.mutable_data()->set_payload("D");
  bob.Command(command);
  ASSERT_TRUE(client.Run([&] { return client.messages.size() == 1; }));
  lk::DataPacket packet;
  ASSERT_TRUE(packet.ParseFromString(client.messages[0]));
  EXPECT_EQ(packet.sip_dtmf().digit(), "D");
  EXPECT_EQ(packet.sip_dtmf().code(), 15u);
  EXPECT_EQ(packet.participant_identity(), "bob");
}

TEST_F(RtcTest, TextFromBeforeTheChannelIsOpenIsNotLost) {
  Peer bob = Join(Joiner("bob"));
  Peer carl = Join(Joiner("carl"));
  RtcClient client;
  auto signalling = std::make_unique<Signalling>(
      server(), OneConnection(Token(Joiner("ann")), JoinRequest(client)));
  const auto answer = signalling->Next(lk::SignalResponse::kAnswer).answer();
  pb::ParticipantCommand command;
  command.mutable_text()->set_stream_id("s");
  command.mutable_text()->set_text("early");
  command.mutable_text()->set_final(true);
  bob.Command(command);
  carl.Event(pb::RoomEvent::kText);  // so it has been handed to ann's side, too
  client.TakeAnswer(answer.sdp());
  EXPECT_TRUE(client.Run([&] { return client.messages.size() == 3; }));
}

TEST_F(RtcTest, MuteAttributesAndLeaveAreSeenByOthers) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  lk::SignalRequest mute;
  mute.mutable_mute()->set_sid(track_sid_);
  mute.mutable_mute()->set_muted(true);
  signalling->Send(mute);
  EXPECT_TRUE(bob.Event(pb::RoomEvent::kTrackMuted).track_muted().muted());
  lk::SignalRequest update;  // the token does not allow it
  update.mutable_update_metadata()->set_name("Ann");
  update.mutable_update_metadata()->set_request_id(7);
  signalling->Send(update);
  const auto refused = signalling->Next(lk::SignalResponse::kRequestResponse).request_response();
  EXPECT_EQ(refused.request_id(), 7);
  EXPECT_EQ(refused.reason(), lk::RequestResponse::NOT_ALLOWED);
  lk::SignalRequest ping;
  ping.mutable_ping_req()->set_timestamp(5);
  signalling->Send(ping);
  EXPECT_EQ(signalling->Next(lk::SignalResponse::kPongResp).pong_resp().last_ping_timestamp(), 5);
  lk::SignalRequest leave;
  leave.mutable_leave();
  signalling->Send(leave);
  EXPECT_EQ(bob.Event(pb::RoomEvent::kParticipantLeft).participant_left().reason(),
            pb::DISCONNECT_REASON_CLIENT_INITIATED);
  EXPECT_EQ(signalling->Next(lk::SignalResponse::kLeave).leave().reason(), lk::CLIENT_INITIATED);
  EXPECT_TRUE(signalling->Finish().ok());
}

TEST_F(RtcTest, WhoMayChangesItselfAndOthersSee) {
  RtcClient client;
  auth::Claims claims = Joiner("ann");
  claims.video.can_update_own_metadata = true;
  const auto signalling = Connect(client, claims);
  Peer bob = Join(Joiner("bob"));
  lk::SignalRequest update;
  update.mutable_update_metadata()->set_name("Ann");
  update.mutable_update_metadata()->set_metadata("about me");
  (*update.mutable_update_metadata()->mutable_attributes())["mood"] = "good";
  update.mutable_update_metadata()->set_request_id(3);
  signalling->Send(update);
  const auto done = signalling->Next(lk::SignalResponse::kRequestResponse).request_response();
  EXPECT_EQ(done.reason(), lk::RequestResponse::OK) << done.message();
  const auto seen =
      bob.Event(pb::RoomEvent::kParticipantUpdated).participant_updated().participant();
  EXPECT_EQ(seen.name(), "Ann");
  EXPECT_EQ(seen.metadata(), "about me");
  EXPECT_EQ(seen.attributes().at("mood"), "good");
  (*update.mutable_update_metadata()->mutable_attributes())["mood"] = std::string(70'000, 'x');
  signalling->Send(update);
  EXPECT_EQ(signalling->Next(lk::SignalResponse::kRequestResponse).request_response().reason(),
            lk::RequestResponse::LIMIT_EXCEEDED);
}

TEST_F(RtcTest, PermissionsHoldForTracksAndPackets) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  client.SendAudio(0, "allowed");
  EXPECT_EQ(bob.Audio().data(), "allowed");
  pb::UpdateParticipantRequest request;  // may only listen from now on
  request.set_room("lobby");
  request.set_identity("ann");
  request.mutable_permission()->set_can_subscribe(true);
  pb::UpdateParticipantResponse response;
  auto rooms = Rooms();
  PARLEY_ASSERT_OK(
      Call(*rooms, &pb::RoomService::Stub::UpdateParticipant, AdminToken(), request, &response));
  EXPECT_EQ(signalling->Next(lk::SignalResponse::kTrackUnpublished).track_unpublished().track_sid(),
            track_sid_);
  EXPECT_FALSE(signalling
                   ->Next(lk::SignalResponse::kUpdate,
                          [](const auto& message) {
                            const auto& who = message.update().participants(0);
                            return who.identity() == "ann" && !who.permission().can_publish();
                          })
                   .update()
                   .participants(0)
                   .permission()
                   .can_publish_data());
  lk::SignalRequest add;
  add.mutable_add_track()->set_cid("again");
  add.mutable_add_track()->set_source(lk::MICROPHONE);
  signalling->Send(add);
  EXPECT_EQ(signalling->Next(lk::SignalResponse::kRequestResponse).request_response().reason(),
            lk::RequestResponse::NOT_ALLOWED);
  lk::DataPacket packet;
  packet.mutable_user()->set_payload("forbidden");
  client.SendData(packet.SerializeAsString());
  for (uint16_t i = 1; i < 10; ++i) client.SendAudio(i, "forbidden");
  client.Run([] { return false; }, absl::Milliseconds(300));
  EXPECT_FALSE(bob.Next(
      [](const auto& message) { return message.has_audio() || message.event().has_data(); },
      absl::Milliseconds(300)));
}

TEST_F(RtcTest, OthersSeeWhoSpeaksAndWhoIsMuted) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  const std::string sid = joined_.participant().sid();
  uint16_t sequence = 0;
  const auto speak = [&](const std::function<bool()>& done) {  // as fast as a microphone does
    int64_t next_us = Clock::Real().MonotonicMicros();
    return client.Run([&] {
      if (const int64_t now_us = Clock::Real().MonotonicMicros(); now_us >= next_us) {
        next_us += 20'000;
        client.SendAudio(sequence++, "words");
      }
      return done();
    });
  };
  const auto told = [&](bool active) {
    return [&sid, active](const lk::SignalResponse& message) {
      return std::ranges::any_of(message.speakers_changed().speakers(), [&](const auto& speaker) {
        return speaker.sid() == sid && speaker.active() == active &&
               (speaker.level() > 0.05) == active;
      });
    };
  };
  EXPECT_TRUE(
      speak([&] { return signalling->Has(lk::SignalResponse::kSpeakersChanged, told(true)); }));
  signalling->Next(lk::SignalResponse::kSpeakersChanged, told(true));
  EXPECT_TRUE(bob.Event(pb::RoomEvent::kSpeakersChanged).speakers_changed().speakers(0).active());
  signalling->Next(lk::SignalResponse::kSpeakersChanged, told(false));  // no frame says so
  EXPECT_TRUE(
      speak([&] { return signalling->Has(lk::SignalResponse::kSpeakersChanged, told(true)); }));
  lk::SignalRequest mute;
  mute.mutable_mute()->set_sid(track_sid_);
  mute.mutable_mute()->set_muted(true);
  signalling->Send(mute);
  signalling->Next(lk::SignalResponse::kSpeakersChanged, told(false));
  bob.Event(pb::RoomEvent::kTrackMuted);
  std::optional<bool> active;  // as bob had been told last when he heard of that
  while (const auto message =
             bob.Next([](const auto& m) { return m.event().has_speakers_changed(); },
                      absl::ZeroDuration())) {
    active = message->event().speakers_changed().speakers(0).active();
  }
  EXPECT_EQ(active, false) << "at once, not at the next look";
}

TEST_F(RtcTest, ConnectionQualityFollowsLoss) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  const std::string sid = joined_.participant().sid();
  const auto told = [&](lk::ConnectionQuality quality) {
    return [&sid, quality](const lk::SignalResponse& message) {
      const auto& info = message.connection_quality().updates(0);
      return info.participant_sid() == sid && info.quality() == quality;
    };
  };
  uint16_t sequence = 0;
  const auto speak = [&](bool lossy, lk::ConnectionQuality quality) {
    int64_t next_us = Clock::Real().MonotonicMicros();
    return client.Run([&] {
      if (const int64_t now_us = Clock::Real().MonotonicMicros(); now_us >= next_us) {
        next_us += 20'000;
        client.SendAudio(sequence, "words", lossy && sequence % 2 == 0);
        ++sequence;
      }
      return signalling->Has(lk::SignalResponse::kConnectionQuality, told(quality));
    });
  };
  EXPECT_TRUE(speak(false, lk::EXCELLENT));
  client.answers_nacks = false;
  EXPECT_TRUE(speak(true, lk::POOR));
  // Somebody who comes later hears of it, too.
  RtcClient second;
  const auto late = Connect(second, "zoe");
  EXPECT_LT(late->Next(lk::SignalResponse::kConnectionQuality, told(lk::POOR))
                .connection_quality()
                .updates(0)
                .score(),
            3.1);
}

TEST_F(RtcTest, TokensAreRefreshed) {
  RtcClient client;
  auth::Claims claims = Joiner("ann");
  claims.name = "Ann";
  claims.video.can_publish_sources = {"microphone"};
  const auto signalling = Connect(client, claims);
  const std::string token = signalling->Next(lk::SignalResponse::kRefreshToken).refresh_token();
  const auto read = auth::Verify(token, *server().context().keys());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->identity, "ann");
  EXPECT_EQ(read->name, "Ann");
  EXPECT_EQ(read->video.room, "lobby");
  EXPECT_EQ(read->video.can_publish_sources, claims.video.can_publish_sources);
  EXPECT_GT(read->expires, absl::Now() + absl::Minutes(9));
  EXPECT_TRUE(TryJoin(token).ok());
}

TEST_F(RtcTest, CallsGoBothWays) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  AgentStream agent(server(), JobToken("AJ_1", 1));
  agent.Open(1, JobToken("AJ_1", 1));
  const std::string identity = agent.Opened(1).joined().participant().identity();

  lk::DataPacket call;
  call.add_destination_identities(identity);
  call.mutable_rpc_request()->set_id("r1");
  call.mutable_rpc_request()->set_method("add");
  call.mutable_rpc_request()->set_payload("1+1");
  call.mutable_rpc_request()->set_response_timeout_ms(8'000);
  call.mutable_rpc_request()->set_version(1);
  client.SendData(call.SerializeAsString());
  const pb::RpcPacket asked =
      client.Meanwhile([&] { return agent.Event(1, pb::RoomEvent::kRpc).rpc(); });
  EXPECT_EQ(asked.request_id(), "r1");
  EXPECT_EQ(asked.from_identity(), "ann");
  EXPECT_EQ(asked.request().method(), "add");
  EXPECT_EQ(asked.request().payload(), "1+1");
  EXPECT_EQ(asked.request().response_timeout_ms(), 8'000);
  pb::ParticipantCommand command;
  command.mutable_rpc()->set_request_id("r1");
  command.mutable_rpc()->set_destination_identity("ann");
  command.mutable_rpc()->mutable_ack();
  agent.Command(1, command);
  command.mutable_rpc()->mutable_response()->set_payload("2");
  agent.Command(1, command);
  ASSERT_TRUE(client.Run([&] { return client.messages.size() == 2; }));
  lk::DataPacket got;
  ASSERT_TRUE(got.ParseFromString(client.messages[0]));
  EXPECT_EQ(got.rpc_ack().request_id(), "r1");
  ASSERT_TRUE(got.ParseFromString(client.messages[1]));
  EXPECT_EQ(got.participant_identity(), identity);
  EXPECT_EQ(got.rpc_response().payload(), "2");

  // The agent calls, and hears of an error.
  command.Clear();
  command.mutable_rpc()->set_request_id("r2");
  command.mutable_rpc()->set_destination_identity("ann");
  command.mutable_rpc()->mutable_request()->set_method("location");
  agent.Command(1, command);
  ASSERT_TRUE(client.Run([&] { return client.messages.size() == 3; }));
  ASSERT_TRUE(got.ParseFromString(client.messages[2]));
  EXPECT_EQ(got.rpc_request().method(), "location");
  EXPECT_EQ(got.rpc_request().version(), 1);
  lk::DataPacket refusal;
  refusal.add_destination_identities(identity);
  refusal.mutable_rpc_response()->set_request_id("r2");
  refusal.mutable_rpc_response()->mutable_error()->set_code(1400);
  client.SendData(refusal.SerializeAsString());
  EXPECT_EQ(client.Meanwhile([&] {
    return agent.Event(1, pb::RoomEvent::kRpc).rpc().response().error().code();
  }),
            1400);

  // Nobody of that name is here: the caller need not wait.
  call.set_destination_identities(0, "nobody");
  client.SendData(call.SerializeAsString());
  ASSERT_TRUE(client.Run([&] { return client.messages.size() == 5; }));
  ASSERT_TRUE(got.ParseFromString(client.messages[3]));
  EXPECT_TRUE(got.has_rpc_ack());
  ASSERT_TRUE(got.ParseFromString(client.messages[4]));
  EXPECT_EQ(got.rpc_response().error().code(), 1401);
}

TEST_F(RtcTest, FilesGoBothWays) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  const std::string content("\x00\xff picture", 10);
  lk::DataPacket header, chunk, trailer;
  header.mutable_stream_header()->set_stream_id("f1");
  header.mutable_stream_header()->set_topic("files");
  header.mutable_stream_header()->set_mime_type("image/png");
  header.mutable_stream_header()->set_total_length(content.size());
  header.mutable_stream_header()->mutable_byte_header()->set_name("cat.png");
  chunk.mutable_stream_chunk()->set_stream_id("f1");
  chunk.mutable_stream_chunk()->set_content(content);
  trailer.mutable_stream_trailer()->set_stream_id("f1");
  for (const auto& one : {header, chunk, trailer}) client.SendData(one.SerializeAsString());
  const auto piece = Heard(bob, client, pb::RoomEvent::kBytes).bytes();
  EXPECT_EQ(piece.content(), content);
  EXPECT_EQ(piece.name(), "cat.png");
  EXPECT_EQ(piece.mime_type(), "image/png");
  EXPECT_EQ(piece.total_bytes(), content.size());
  EXPECT_EQ(piece.from_identity(), "ann");
  EXPECT_TRUE(Heard(bob, client, pb::RoomEvent::kBytes).bytes().final());

  pb::ParticipantCommand command;
  command.mutable_bytes()->set_stream_id("f2");
  command.mutable_bytes()->set_topic("files");
  command.mutable_bytes()->set_name("dog.png");
  command.mutable_bytes()->set_content(std::string(40'000, 'd'));
  command.mutable_bytes()->set_final(true);
  bob.Command(command);
  ASSERT_TRUE(client.Run([&] { return client.messages.size() == 5; }));  // three chunks
  lk::DataPacket got;
  ASSERT_TRUE(got.ParseFromString(client.messages[0]));
  EXPECT_EQ(got.stream_header().byte_header().name(), "dog.png");
  EXPECT_EQ(got.participant_identity(), "bob");
  size_t bytes = 0;
  for (size_t i = 1; i < 4; ++i) {
    ASSERT_TRUE(got.ParseFromString(client.messages[i]));
    EXPECT_EQ(got.stream_chunk().chunk_index(), i - 1);
    bytes += got.stream_chunk().content().size();
  }
  EXPECT_EQ(bytes, 40'000);
}

// ---- two connections, and connections that break ----

TEST_F(RtcTest, ClientsWithTwoConnectionsHearAndAreHeard) {
  pb::OpenSignalling open;
  open.set_token(Token(Joiner("ann")));
  open.set_two_connections(true);
  (*open.mutable_query())["auto_subscribe"] = "1";
  Peer bob = Join(Joiner("bob"));
  bob.Publish("bobs");
  const std::string sid = bob.PublishedSid();
  Signalling signalling(server(), open);
  EXPECT_TRUE(signalling.Next(lk::SignalResponse::kJoin).join().subscriber_primary());
  RtcClient down;
  down.opens_channels = false;
  const auto answer = [&](const lk::SessionDescription& offer) {
    EXPECT_EQ(offer.type(), "offer");
    lk::SignalRequest request;
    request.mutable_answer()->set_sdp(down.Answer(offer.sdp()));
    request.mutable_answer()->set_id(offer.id());
    signalling.Send(request);
  };
  const auto offer = signalling.Next(lk::SignalResponse::kOffer).offer();
  EXPECT_EQ(offer.mid_to_track_id().at("1"), sid);
  answer(offer);
  ASSERT_TRUE(down.Run([&] { return down.channels.size() == 2; }));
  EXPECT_TRUE(Told(bob, absl::Seconds(5)));
  EXPECT_EQ(down.channels, (std::vector<std::string>{"_reliable", "_lossy"}));
  int sent = 0;
  EXPECT_TRUE(down.Run([&] {
    bob.SendAudio(sid, "from bob", static_cast<uint32_t>(960 * sent++));
    return down.heard.size() >= 20;
  }));
  pb::ParticipantCommand text;
  text.mutable_text()->set_stream_id("s");
  text.mutable_text()->set_text("hello");
  text.mutable_text()->set_final(true);
  bob.Command(text);
  EXPECT_TRUE(down.Run([&] { return down.messages.size() == 3; }));

  // It publishes on a connection of its own.
  RtcClient up;
  lk::SignalRequest add;
  add.mutable_add_track()->set_cid("mic");
  add.mutable_add_track()->set_source(lk::MICROPHONE);
  signalling.Send(add);
  EXPECT_EQ(signalling.Next(lk::SignalResponse::kTrackPublished).track_published().cid(), "mic");
  lk::SignalRequest own;
  own.mutable_offer()->set_sdp(up.Offer("mic"));
  own.mutable_offer()->set_id(1);
  signalling.Send(own);
  up.TakeAnswer(signalling.Next(lk::SignalResponse::kAnswer).answer().sdp());
  ASSERT_TRUE(up.Run([&] { return up.connected(); }));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  for (uint16_t i = 0; i < 5; ++i) up.SendAudio(i, std::to_string(i));
  for (uint16_t i = 0; i < 5; ++i) EXPECT_EQ(bob.Audio().data(), std::to_string(i));
  lk::DataPacket packet;
  packet.mutable_user()->set_payload("hi");
  up.SendData(packet.SerializeAsString());
  EXPECT_EQ(Heard(bob, up, pb::RoomEvent::kData).data().payload(), "hi");

  // A track that ends leaves its section to the next.
  pb::ParticipantCommand end;
  end.mutable_unpublish()->set_track_sid(sid);
  bob.Command(end);
  const auto without = signalling.Next(lk::SignalResponse::kOffer).offer();
  EXPECT_EQ(without.mid_to_track_id().size(), 0);
  answer(without);
  bob.Publish("another");
  const std::string next_sid = bob.PublishedSid();
  const auto with = signalling.Next(lk::SignalResponse::kOffer).offer();
  EXPECT_EQ(with.mid_to_track_id().at("1"), next_sid);
  answer(with);
  down.heard.clear();
  EXPECT_TRUE(down.Run([&] {
    bob.SendAudio(next_sid, "another", static_cast<uint32_t>(960 * sent++));
    return down.heard.size() >= 5;
  }));
}

TEST_F(RtcTest, CallGoesOnWhenSignallingBreaksAndTheNetworkChanges) {
  RtcClient client;
  auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  bob.Publish("bobs");
  const std::string sid = bob.PublishedSid();
  Renegotiate(client, *signalling);
  const std::string own_sid = joined_.participant().sid();
  lk::DataPacket packet;
  packet.mutable_user()->set_payload("before");
  client.SendData(packet.SerializeAsString());
  EXPECT_EQ(Heard(bob, client, pb::RoomEvent::kData).data().payload(), "before");
  signalling->Cut();
  uint16_t sequence = 0;
  for (; sequence < 10; ++sequence) client.SendAudio(sequence, std::to_string(sequence));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(bob.Audio().data(), std::to_string(i));
  Peer carol = Join(Joiner("carol"));  // while she is away

  client.ChangeNetwork();
  signalling = Reconnect("ann", own_sid);
  EXPECT_EQ(signalling->First(), lk::SignalResponse::kReconnect);
  const auto update = signalling->Next(lk::SignalResponse::kUpdate).update();
  EXPECT_EQ(update.participants_size(), 3);
  EXPECT_TRUE(std::ranges::any_of(update.participants(),
                                  [](const auto& one) { return one.identity() == "carol"; }));
  Offer(client, *signalling, 3);
  client.heard.clear();
  int sent = 0;
  EXPECT_TRUE(client.Run([&] {
    bob.SendAudio(sid, "still here", static_cast<uint32_t>(960 * sent++));
    return client.heard.size() >= 5;
  }));
  for (; sequence < 20; ++sequence) client.SendAudio(sequence, std::to_string(sequence));
  for (int i = 10; i < 20; ++i) EXPECT_EQ(bob.Audio().data(), std::to_string(i));
  packet.mutable_user()->set_payload("hi");  // the association of the data channels lives on, too
  client.SendData(packet.SerializeAsString());
  EXPECT_EQ(Heard(bob, client, pb::RoomEvent::kData).data().payload(), "hi");
  EXPECT_FALSE(bob.Next([](const auto& m) { return m.event().has_participant_left(); },
                        absl::Milliseconds(10)))
      << "others saw her leave";
}

TEST_F(RtcTest, TwoConnectionsGoOnWithNewCredentials) {
  pb::OpenSignalling open;
  open.set_token(Token(Joiner("ann")));
  open.set_two_connections(true);
  auto signalling = std::make_unique<Signalling>(server(), open);
  const std::string own_sid =
      signalling->Next(lk::SignalResponse::kJoin).join().participant().sid();
  RtcClient down;
  down.opens_channels = false;
  const auto answer = [&] {
    const auto offer = signalling->Next(lk::SignalResponse::kOffer).offer();
    lk::SignalRequest request;
    request.mutable_answer()->set_sdp(down.Answer(offer.sdp()));
    request.mutable_answer()->set_id(offer.id());
    signalling->Send(request);
    return webrtc::ParseSdp(offer.sdp())->sections[0].ice_ufrag;
  };
  const std::string before = answer();
  ASSERT_TRUE(down.Run([&] { return down.channels.size() == 2; }));
  signalling->Cut();
  down.ChangeNetwork();
  (*open.mutable_query())["reconnect"] = "1";
  (*open.mutable_query())["sid"] = own_sid;
  signalling = std::make_unique<Signalling>(server(), open);
  EXPECT_EQ(signalling->First(), lk::SignalResponse::kReconnect);
  EXPECT_NE(answer(), before);
  Peer bob = Join(Joiner("bob"));
  pb::ParticipantCommand text;
  text.mutable_text()->set_stream_id("s");
  text.mutable_text()->set_text("hello");
  text.mutable_text()->set_final(true);
  bob.Command(text);
  EXPECT_TRUE(down.Run([&] { return down.messages.size() == 3; }));
}

TEST_F(RtcTest, WhoDoesNotComeBackLeaves) {
  config_.rtc_resume = absl::Seconds(1);
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  const std::string own_sid = joined_.participant().sid();
  // The server knows that media flows: before that there is nothing to come back to.
  EXPECT_TRUE(client.Run([&] {
    return signalling->Has(lk::SignalResponse::kConnectionQuality,
                           [](const auto&) { return true; });
  }));
  const absl::Time before = absl::Now();
  signalling->Cut();
  std::atomic<bool> over{false};
  std::thread alive([&] { client.Run([&] { return over.load(); }); });  // its media goes on
  const auto left = bob.Event(pb::RoomEvent::kParticipantLeft).participant_left();
  over = true;
  alive.join();
  EXPECT_EQ(left.reason(), pb::DISCONNECT_REASON_CONNECTION_LOST);
  EXPECT_GT(absl::Now() - before, absl::Seconds(1));
  // Too late, or somebody else's: join anew.
  for (const std::string& sid : {own_sid, std::string("PA_unknown")}) {
    const auto leave = Reconnect("ann", sid)->Next(lk::SignalResponse::kLeave).leave();
    EXPECT_EQ(leave.reason(), lk::STATE_MISMATCH);
    EXPECT_EQ(leave.action(), lk::LeaveRequest::RECONNECT);
  }
}

TEST_F(RtcTest, NobodyGoesOnWithTheSeatOfAnother) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  const std::string sid = joined_.participant().sid();
  EXPECT_EQ(Reconnect("eve", sid)->Next(lk::SignalResponse::kLeave).leave().reason(),
            lk::STATE_MISMATCH);
  lk::SignalRequest ping;
  ping.set_ping(1);
  signalling->Send(ping);
  EXPECT_GT(signalling->Next(lk::SignalResponse::kPong).pong(), 0);
}

TEST_F(RtcTest, SecondOfAnIdentityReplacesTheFirst) {
  RtcClient first, second;
  const auto old = Connect(first, "ann");
  const auto fresh = Connect(second, "ann");
  const auto leave = old->Next(lk::SignalResponse::kLeave).leave();
  EXPECT_EQ(leave.reason(), lk::DUPLICATE_IDENTITY);
  EXPECT_EQ(leave.action(), lk::LeaveRequest::DISCONNECT);
}

// What a hostile peer with a seat of its own may do; ann, who talks to bob meanwhile, must not
// notice.
TEST_F(RtcTest, HostilePeersHarmOnlyThemselves) {
  RtcClient ann;
  const auto signalling = Connect(ann, "ann");
  Peer bob = Join(Joiner("bob"));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  uint16_t sequence = 0;
  const auto undisturbed = [&](const char* after) {
    SCOPED_TRACE(after);
    for (int i = 0; i < 3; ++i, ++sequence) {
      ann.SendAudio(sequence, std::to_string(sequence));
      EXPECT_EQ(bob.Audio().data(), std::to_string(sequence));
    }
    ann.Run([] { return false; }, absl::Milliseconds(20));
    EXPECT_FALSE(ann.broken);
  };
  const auto quiet = [](int number) {  // eve publishes nothing that bob would hear
    auth::Claims claims = Joiner(fmt::format("eve{}", number));
    claims.video.can_publish_sources = {"camera"};
    return claims;
  };
  int eves = 0;
  const auto enter = [&](RtcClient& eve) {
    auto stream = std::make_unique<Signalling>(
        server(), OneConnection(Token(quiet(eves++)), JoinRequest(eve)));
    eve.TakeAnswer(stream->Next(lk::SignalResponse::kAnswer).answer().sdp());
    return stream;
  };
  {
    RtcClient eve;  // whose certificate is not the one she announced
    eve.fingerprint = "00";
    for (int i = 0; i < 31; ++i) eve.fingerprint += ":00";
    const auto stream = enter(eve);
    const auto leave = eve.Meanwhile([&] { return stream->Next(lk::SignalResponse::kLeave); });
    EXPECT_EQ(leave.leave().reason(), lk::SIGNAL_CLOSE);
    undisturbed("a false fingerprint");
  }
  {
    RtcClient eve;
    const auto stream = enter(eve);
    ASSERT_TRUE(eve.Run([&] { return eve.connected(); }));
    for (int i = 1; i < 50; ++i) eve.SendPlain(std::string(static_cast<size_t>(i), '\x13'));
    eve.SendAudio(0, std::string(1300, 'x'));  // of a track she may not publish
    undisturbed("nonsense in the place of SCTP");
    eve.Run([] { return false; }, absl::Milliseconds(100));
    eve.SendData(std::string(webrtc::kMaxDataMessage + 1, 'x'));
    const auto leave = eve.Meanwhile([&] { return stream->Next(lk::SignalResponse::kLeave); });
    EXPECT_EQ(leave.leave().action(), lk::LeaveRequest::RECONNECT);
    undisturbed("a message over the limit");
  }
  {
    RtcClient eve;
    const auto stream = enter(eve);
    lk::SignalRequest offer;
    offer.mutable_offer()->set_sdp("v=0\r\nm=audio");
    stream->Send(offer);
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    undisturbed("a broken description");
  }
  // Datagrams that pretend to be hers.
  ann.Replay(static_cast<uint16_t>(sequence - 1));
  ann.Replay(0);
  undisturbed("replayed packets");
  ann.CheckFromElsewhere("wrong password");
  undisturbed("a forged check");
  ann.CheckFromElsewhere("");  // genuine, but nobody is nominated
  bob.Publish("bobs");
  const std::string sid = bob.PublishedSid();
  Renegotiate(ann, *signalling);
  int sent = 0;
  EXPECT_TRUE(ann.Run([&] {
    bob.SendAudio(sid, "still to ann", static_cast<uint32_t>(960 * sent++));
    return ann.heard.size() >= 5;
  })) << "media went where nobody had been nominated";
}

TEST_F(RtcTest, ManyAttemptsToJoinAreRefused) {
  RtcClient ann;
  const auto signalling = Connect(ann, "ann");
  Peer bob = Join(Joiner("bob"));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  const char* wanted = std::getenv("PARLEY_JOIN_ATTEMPTS");
  const int attempts = wanted == nullptr ? 1'000 : std::atoi(wanted);
  std::atomic<int> left{attempts};
  std::atomic<int> refused{0};
  const std::string token = Token(Joiner("eve"));
  const std::string forged = token.substr(0, token.size() - 4) + "AAAA";
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      auto stub = pb::SignallingService::NewStub(server().channel());
      while (--left >= 0) {
        grpc::ClientContext context;
        auto stream = stub->Connect(&context);
        pb::ConnectRequest request;
        *request.mutable_open() = OneConnection(forged, {});
        stream->Write(request);
        if (stream->Finish().error_code() == grpc::StatusCode::UNAUTHENTICATED) ++refused;
      }
    });
  }
  for (uint16_t i = 0; i < 50; ++i) {  // while they try
    ann.SendAudio(i, std::to_string(i));
    ann.Run([] { return false; }, absl::Milliseconds(20));
    EXPECT_EQ(bob.Audio().data(), std::to_string(i));
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(refused, attempts);
  EXPECT_EQ(Join(Joiner("zoe"))
                .Event(pb::RoomEvent::kSubscriptionStarted)
                .subscription_started()
                .participant_identity(),
            "ann");
}

TEST_F(RtcTest, HostileInputDisturbsNobody) {
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  // Joins that cannot work.
  const auto refused = [&](const std::string& token, const lk::JoinRequest& join) {
    Signalling attempt(server(), OneConnection(token, join));
    return attempt.Finish().error_code();
  };
  lk::JoinRequest join = JoinRequest(client);
  EXPECT_EQ(refused("no token", join), grpc::StatusCode::UNAUTHENTICATED);
  join.mutable_publisher_offer()->set_sdp("nonsense");
  EXPECT_EQ(refused(Token(Joiner("eve")), join), grpc::StatusCode::INVALID_ARGUMENT);
  join.mutable_publisher_offer()->set_sdp("v=0" + std::string(webrtc::kMaxSdpBytes, 'x'));
  EXPECT_EQ(refused(Token(Joiner("eve")), join), grpc::StatusCode::INVALID_ARGUMENT);
  // Datagrams from the very address of the client, as a forger would send them.
  std::array<uint8_t, webrtc::kMaxStunBytes> check;
  const size_t size =
      webrtc::WriteBindingRequest({9}, "nobody:them", "wrong password", true, check);
  client.SendRaw(webrtc::Text(webrtc::Bytes(check).first(size)));
  for (const uint8_t first : {0, 1, 19, 20, 22, 63, 64, 128, 144, 200, 255}) {
    client.SendRaw(std::string(100, static_cast<char>(first)));
  }
  client.SendRaw(std::string(1400, '\x80'));
  for (uint16_t i = 0; i < 3; ++i) client.SendAudio(i, std::to_string(i));
  for (uint16_t i = 0; i < 3; ++i) EXPECT_EQ(bob.Audio().data(), std::to_string(i));
}

}  // namespace
}  // namespace parley
