#pragma once
// Participants of LiveKit's kind in a real room server: their signalling connections, and what a
// client does to join.
#include <openssl/evp.h>
#include <parley/livekit/v1/rtc.pb.h>
#include <parley/room/v1/signalling.grpc.pb.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "room_server_fixture.h"
#include "rtc_client.h"

namespace parley {

namespace lk = ::parley::livekit::v1;

inline std::string Base64Url(const std::string& bytes) {
  std::string out(bytes.size() * 4 / 3 + 8, '\0');
  out.resize(static_cast<size_t>(EVP_EncodeBlock(reinterpret_cast<uint8_t*>(out.data()),
                                                 reinterpret_cast<const uint8_t*>(bytes.data()),
                                                 static_cast<int>(bytes.size()))));
  std::ranges::replace(out, '+', '-');
  std::ranges::replace(out, '/', '_');
  while (out.ends_with('=')) out.pop_back();
  return out;
}

inline pb::OpenSignalling OneConnection(const std::string& token, const lk::JoinRequest& join) {
  lk::WrappedJoinRequest wrapped;
  wrapped.set_join_request(join.SerializeAsString());
  pb::OpenSignalling open;
  open.set_token(token);
  open.set_join_request(Base64Url(wrapped.SerializeAsString()));
  return open;
}

// One signalling connection.
class Signalling {
 public:
  Signalling(RunningRoomServer& server, const pb::OpenSignalling& open)
      : stub_(pb::SignallingService::NewStub(server.channel())),
        stream_(stub_->Connect(&context_)) {
    pb::ConnectRequest request;
    *request.mutable_open() = open;
    stream_->Write(request);
    reader_ = std::thread([this] {
      pb::ConnectResponse response;
      while (stream_->Read(&response)) {
        lk::SignalResponse message;
        EXPECT_TRUE(message.ParseFromString(response.frame().data()));
        MutexLock lock(&mutex_);
        inbox_.push_back(message);
        arrived_.SignalAll();
      }
      MutexLock lock(&mutex_);
      over_ = true;
      arrived_.SignalAll();
    });
  }
  ~Signalling() { Cut(); }
  void Cut() {
    context_.TryCancel();
    if (reader_.joinable()) (void)Finish();
  }
  grpc::Status Finish() {
    reader_.join();
    return stream_->Finish();
  }
  void Send(const lk::SignalRequest& message) {
    pb::ConnectRequest request;
    request.mutable_frame()->set_data(message.SerializeAsString());
    stream_->Write(request);
  }
  // The next message of this kind for which `matches`; others wait for later calls.
  template <typename Matches>
  lk::SignalResponse Next(lk::SignalResponse::MessageCase kind, Matches matches,
                          absl::Duration timeout = absl::Seconds(15)) {
    const absl::Time until = absl::Now() + timeout;
    MutexLock lock(&mutex_);
    while (true) {
      for (auto entry = inbox_.begin(); entry != inbox_.end(); ++entry) {
        if (entry->message_case() != kind || !matches(*entry)) continue;
        lk::SignalResponse found = std::move(*entry);
        inbox_.erase(entry);
        return found;
      }
      if (over_ || absl::Now() >= until) break;
      arrived_.WaitFor(&mutex_, until - absl::Now());
    }
    ADD_FAILURE() << "no message " << kind;
    return {};
  }
  lk::SignalResponse Next(lk::SignalResponse::MessageCase kind) {
    return Next(kind, [](const auto&) { return true; });
  }
  // Is there such a message by now?
  template <typename Matches>
  bool Has(lk::SignalResponse::MessageCase kind, Matches matches) {
    MutexLock lock(&mutex_);
    return std::ranges::any_of(inbox_, [&](const auto& message) {
      return message.message_case() == kind && matches(message);
    });
  }
  lk::SignalResponse::MessageCase First() {
    const absl::Time until = absl::Now() + absl::Seconds(15);
    MutexLock lock(&mutex_);
    while (inbox_.empty() && !over_ && absl::Now() < until) {
      arrived_.WaitFor(&mutex_, until - absl::Now());
    }
    return inbox_.empty() ? lk::SignalResponse::MESSAGE_NOT_SET : inbox_.front().message_case();
  }

 private:
  std::unique_ptr<pb::SignallingService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<pb::ConnectRequest, pb::ConnectResponse>> stream_;
  Mutex mutex_;
  CondVar arrived_;
  std::deque<lk::SignalResponse> inbox_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread reader_;
};

class RtcTest : public RoomServerTest {
 protected:
  lk::JoinRequest JoinRequest(const RtcClient& client) {
    lk::JoinRequest join;
    join.mutable_connection_settings()->set_auto_subscribe(true);
    lk::AddTrackRequest& track = *join.add_add_track_requests();
    track.set_cid("mic");
    track.set_source(lk::MICROPHONE);
    join.mutable_publisher_offer()->set_sdp(client.Offer("mic"));
    join.mutable_publisher_offer()->set_id(1);
    return join;
  }
  std::unique_ptr<Signalling> Connect(RtcClient& client, const std::string& identity) {
    return Connect(client, Joiner(identity));
  }
  std::unique_ptr<Signalling> Connect(RtcClient& client, const auth::Claims& claims) {
    auto signalling =
        std::make_unique<Signalling>(server(), OneConnection(Token(claims), JoinRequest(client)));
    joined_ = signalling->Next(lk::SignalResponse::kJoin).join();
    track_sid_ =
        signalling->Next(lk::SignalResponse::kTrackPublished).track_published().track().sid();
    const auto answer = signalling->Next(lk::SignalResponse::kAnswer).answer();
    EXPECT_EQ(answer.id(), 1);
    client.TakeAnswer(answer.sdp());
    EXPECT_TRUE(client.Run([&] { return client.connected(); }));
    return signalling;
  }
  std::unique_ptr<Signalling> Reconnect(const std::string& identity, const std::string& sid) {
    lk::JoinRequest join;
    join.set_reconnect(true);
    join.set_participant_sid(sid);
    return std::make_unique<Signalling>(server(), OneConnection(Token(Joiner(identity)), join));
  }
  static void Offer(RtcClient& client, Signalling& signalling, uint32_t id) {
    lk::SignalRequest offer;
    offer.mutable_offer()->set_sdp(client.Offer("mic"));
    offer.mutable_offer()->set_id(id);
    signalling.Send(offer);
    const auto answer = signalling.Next(lk::SignalResponse::kAnswer).answer();
    EXPECT_EQ(answer.id(), id);
    EXPECT_EQ(answer.mid_to_track_id().count("1"), 1);
    client.TakeAnswer(answer.sdp());
  }
  // A free section carries the other's track once the client has offered again.
  static void Renegotiate(RtcClient& client, Signalling& signalling) {
    EXPECT_EQ(signalling.Next(lk::SignalResponse::kMediaSectionsRequirement)
                  .media_sections_requirement()
                  .num_audios(),
              0);
    Offer(client, signalling, 2);
  }
  // The next of these events that `peer` hears of, while the client that says it moves on.
  static pb::RoomEvent Heard(Peer& peer, RtcClient& client, pb::RoomEvent::EventCase which) {
    return client.Meanwhile([&] { return peer.Event(which); });
  }
  // Sends so many packets, of which the `lost` (counted from 0) never leave at first. True when
  // `peer` hears all of them, in order. A room server waits 80 ms for one that is missing, less
  // than a busy machine may take to let us answer: several tries, each of which keeps the order.
  static bool LostOnesComeInOrder(RtcClient& client, Peer& peer, int packets,
                                  const std::set<int>& lost) {
    for (int first = 0; first < 10 * packets; first += packets) {
      std::vector<std::string> sent, never_lost;
      for (int i = 0; i < packets; ++i) {
        sent.push_back(std::to_string(first + i));
        if (!lost.contains(i)) never_lost.push_back(sent.back());
        client.SendAudio(static_cast<uint16_t>(first + i), sent.back(), lost.contains(i));
      }
      const auto heard = client.Meanwhile([&] {
        std::vector<std::string> all;
        do all.push_back(peer.Audio().data());
        while (all.back() != sent.back() && !all.back().empty());
        return all;
      });
      if (heard == sent) return true;
      EXPECT_TRUE(std::ranges::includes(heard, never_lost, NumbersRise));
      EXPECT_TRUE(std::ranges::is_sorted(heard, NumbersRise));
    }
    return false;
  }
  static bool NumbersRise(const std::string& one, const std::string& other) {
    return std::atoi(one.c_str()) < std::atoi(other.c_str());
  }
  lk::JoinResponse joined_;
  std::string track_sid_;
};

}  // namespace parley
