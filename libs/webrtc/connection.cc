#include "webrtc/connection.h"

#include <absl/time/clock.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "webrtc/tallies.h"

namespace parley::webrtc {
namespace {

constexpr size_t kMaxUfrags = 4;  // of the last restarts of ICE
constexpr int64_t kReportEveryUs = 1'000'000;
constexpr int64_t kFeedbackEveryUs = 100'000;
constexpr int64_t kLookEveryUs = 100'000;     // at what video the other side gets
constexpr int64_t kPictureEveryUs = 500'000;  // one that needs no other is large
constexpr size_t kMaxPacket = 1500;
constexpr size_t kMinRtp = 12;
constexpr size_t kMaxWishes = 256;  // a client's word about tracks that it does not receive

uint32_t Random32() {
  uint32_t value = 0;
  RAND_bytes(reinterpret_cast<uint8_t*>(&value), sizeof value);
  return value;
}

int64_t UnixMicros() { return absl::ToUnixMicros(absl::Now()); }

}  // namespace

Connection::Connection(ConnectionHost& host, std::shared_ptr<PeerObserver> observer, int64_t now_us)
    : host_(host), observer_(std::move(observer)), heard_us_(now_us), own_ssrc_(Random32()) {}

Connection::~Connection() {
  data_.reset();  // says goodbye through DTLS
  for (const auto& incoming : incoming_) {
    host_.tallies().packets_skipped += incoming->stream.figures().skipped;
  }
}

void Connection::End(std::string_view why) {
  if (over_.empty()) over_ = why;
}

void Connection::Apply(Plan plan) {
  if (!pwd_of_.contains(plan.local_ufrag)) {
    pwd_of_[plan.local_ufrag] = plan.local_pwd;
    ufrags_.push_back(plan.local_ufrag);
    if (ufrags_.size() > kMaxUfrags) {
      pwd_of_.erase(ufrags_.front());
      ufrags_.erase(ufrags_.begin());
    }
  }
  if (dtls_ == nullptr) {
    dtls_client_ = plan.dtls_client;  // the first plan decides
    StartDtls(plan.fingerprint);
    heard_us_ = host_.loop().NowMicros();
  }
  std::erase_if(incoming_, [&](const auto& incoming) {
    const auto receive = std::ranges::find_if(
        plan.receive, [&](const auto& receive) { return receive.mid == incoming->plan.mid; });
    const bool goes_on =
        receive != plan.receive.end() &&
        (receive->ssrcs.empty() ||
         std::ranges::find(receive->ssrcs, incoming->stream.ssrc()) != receive->ssrcs.end());
    if (goes_on) incoming->plan = *receive;
    return !goes_on;
  });
  UpdateOutgoing(plan);
  plan_ = std::move(plan);
  if (dtls_->connected()) StartData();
}

void Connection::UpdateOutgoing(const Plan& plan) {
  const auto gone = [&](const auto& outgoing) {
    return std::ranges::none_of(
        plan.send, [&](const SendPlan& send) { return send.ssrc == outgoing->stream.ssrc(); });
  };
  std::erase_if(outgoing_, gone);
  std::erase_if(outgoing_video_, gone);
  for (const SendPlan& send : plan.send) {
    const auto same = [&](const auto& outgoing) { return outgoing->stream.ssrc() == send.ssrc; };
    if (std::ranges::any_of(outgoing_, same) || std::ranges::any_of(outgoing_video_, same)) {
      continue;
    }
    const auto first = static_cast<uint16_t>(Random32() & 0x7fff);
    if (!send.video) {
      outgoing_.push_back(std::make_unique<Outgoing>(
          send.track, SendStream(send.ssrc, send.payload_type, send.audio_level_id, first)));
      continue;
    }
    VideoSender& stream =
        outgoing_video_.emplace_back(std::make_unique<OutgoingVideo>(VideoSender(send, first)))
            ->stream;
    const auto wish = video_wishes_.find(send.track);
    if (wish != video_wishes_.end()) stream.SetWish(wish->second);
  }
}

void Connection::StartDtls(const std::string& fingerprint) {
  using Role = DtlsTransport::Role;
  dtls_ = std::make_unique<DtlsTransport>(
      host_.dtls(), dtls_client_ ? Role::kClient : Role::kServer, fingerprint,
      [this](Bytes datagram) { SendToPeer(datagram); },
      [this](Bytes plain) {
        if (data_ != nullptr) data_->Take(plain);
      });
  if (dtls_client_) dtls_->Start();
}

void Connection::Reach(const Endpoint& remote) { remote_ = remote; }

bool Connection::TakeBindingRequest(const StunMessage& message, std::string_view ufrag,
                                    const Endpoint& from) {
  const auto pwd = pwd_of_.find(std::string(ufrag));
  if (pwd == pwd_of_.end() || !CheckIntegrity(message, pwd->second)) return false;
  heard_us_ = host_.loop().NowMicros();
  if (std::ranges::find(endpoints_, from) == endpoints_.end()) {
    endpoints_.push_back(from);
  }
  // Until one is nominated the first that works will do: it saves a round trip. A nomination under
  // old credentials comes from before a restart.
  if (!remote_ || (message.use_candidate && ufrag == ufrags_.back())) remote_ = from;
  std::array<uint8_t, kMaxStunBytes> answer;
  const size_t size = WriteBindingSuccess(message.transaction, from, pwd->second, answer);
  host_.SendDatagram(from, {answer.data(), size});
  return true;
}

void Connection::Take(std::span<uint8_t> datagram) {
  const uint8_t first = datagram[0];
  if (first >= 20 && first <= 63) {
    TakeDtls(datagram);
  } else if (first >= 128 && first <= 191 && srtp_ != nullptr) {
    IsRtcp(datagram) ? TakeRtcp(datagram) : TakeRtp(datagram);
  } else {
    ++host_.tallies().refused;
  }
}

void Connection::TakeDtls(Bytes datagram) {
  const bool before = dtls_->connected();
  if (const absl::Status status = dtls_->Take(datagram); !status.ok()) {
    return End(Message(status));
  }
  if (!before && dtls_->connected()) OnSecured();
}

void Connection::OnSecured() {
  auto srtp = Srtp::Create(dtls_->keys());
  if (!srtp.ok()) return End(Message(srtp.status()));
  srtp_ = *std::move(srtp);
  StartData();
  observer_->OnConnected();
}

void Connection::StartData() {
  if (data_ != nullptr || plan_.sctp_port == 0) return;
  DataTransport::Handlers handlers;
  handlers.send = [this](Bytes packet) { dtls_->Write(packet); };
  handlers.on_open = [this](const DataChannel& channel) { OnChannelOpen(channel); };
  handlers.on_message = [this](const DataChannel& channel, Bytes message) {
    observer_->OnData(channel.label, message);
  };
  data_ = std::make_unique<DataTransport>(host_.loop(), dtls_client_, std::move(handlers));
  if (const absl::Status status = data_->Start(plan_.sctp_port); !status.ok()) {
    return End(Message(status));
  }
  for (const ChannelPlan& channel : plan_.channels) {
    if (const absl::Status status =
            data_->Open(channel.label, channel.ordered, channel.max_retransmits);
        !status.ok()) {
      return End(Message(status));
    }
  }
  SendEarly();
}

Connection::Incoming* Connection::Find(uint32_t ssrc) {
  for (const auto& incoming : incoming_) {
    if (incoming->stream.ssrc() == ssrc) return incoming.get();
  }
  return nullptr;
}

// A source that is heard for the first time: announced by its SSRC, or by the section it names.
const ReceivePlan* Connection::PlanOf(Bytes datagram, uint8_t* layer) const {
  if (incoming_.size() >= kMaxStreams) return nullptr;  // each costs memory in libsrtp
  const uint32_t ssrc = Get32(datagram.data() + 8);
  for (const ReceivePlan& plan : plan_.receive) {
    const bool named = std::ranges::find(plan.ssrcs, ssrc) != plan.ssrcs.end();
    if (named && plan.rids.empty()) return &plan;
    const auto packet = ParseRtp(datagram, plan.extensions);
    if (!packet || (!named && (packet->mid.empty() || packet->mid != plan.mid))) continue;
    if (plan.rids.empty()) return &plan;
    const auto rid = std::ranges::find(plan.rids, packet->rid);
    if (rid == plan.rids.end()) return nullptr;
    *layer = static_cast<uint8_t>(rid - plan.rids.begin());
    return &plan;
  }
  return nullptr;
}

void Connection::Begin(const ReceivePlan& plan, uint32_t ssrc, uint8_t layer) {
  incoming_.push_back(std::make_unique<Incoming>(plan, ReceiveStream(ssrc)));
  incoming_.back()->layer = layer;
  if (plan.video) incoming_.back()->video = std::make_unique<VideoReceiver>(ssrc);
}

void Connection::TakeRtp(std::span<uint8_t> datagram) {
  const int64_t now_us = host_.loop().NowMicros();
  Incoming* incoming = datagram.size() < kMinRtp ? nullptr : Find(Get32(datagram.data() + 8));
  uint8_t layer = 0;
  const ReceivePlan* plan = incoming != nullptr         ? &incoming->plan
                            : datagram.size() < kMinRtp ? nullptr
                                                        : PlanOf(datagram, &layer);
  const size_t size = plan == nullptr ? 0 : srtp_->UnprotectRtp(datagram);
  const auto packet = size == 0 ? std::nullopt : ParseRtp(datagram.first(size), plan->extensions);
  if (!packet) {
    ++host_.tallies().refused;
    return;
  }
  if (incoming == nullptr) {  // only now that the packet is known to be genuine
    Begin(*plan, packet->ssrc, layer);
    incoming = incoming_.back().get();
  }
  if (packet->transport_sequence) Arrived(*packet->transport_sequence, now_us);
  if (packet->payload_type != incoming->plan.payload_type) return;
  if (incoming->plan.tag == ReceivePlan::kNobody) return;
  ++host_.tallies().packets_in;
  Take(*incoming, *packet, now_us);
  AskForMissing(*incoming, now_us);
}

void Connection::Take(Incoming& incoming, const RtpPacket& packet, int64_t now_us) {
  if (incoming.video == nullptr) {
    Forward forward(*observer_, incoming.plan.tag);
    return incoming.stream.Add(packet, now_us, forward);
  }
  const auto number = incoming.video->Add(packet, now_us);
  if (!number) return;
  observer_->OnVideo(incoming.plan.tag,
                     {.timestamp = packet.timestamp,
                      .sequence = *number,
                      .layer = incoming.layer,
                      .marker = packet.marker,
                      .key = BeginsKeyPicture(*incoming.plan.video, packet.payload),
                      .payload = Text(packet.payload)});
}

void Connection::TakeRtcp(std::span<uint8_t> datagram) {
  const size_t size = srtp_->UnprotectRtcp(datagram);
  if (size == 0 || !ReadRtcp(datagram.first(size), *this)) ++host_.tallies().refused;
}

void Connection::OnSenderReport(const SenderReport& report) {
  for (const auto& incoming : incoming_) {
    if (incoming->stream.ssrc() != report.ssrc) continue;
    const int64_t now_us = host_.loop().NowMicros();
    incoming->stream.OnSenderReport(report, now_us);
    if (incoming->video != nullptr) incoming->video->OnSenderReport(report, now_us);
  }
}

void Connection::OnReportBlock(const ReportBlock& block) {
  const auto now = static_cast<uint32_t>(NtpTime(UnixMicros()) >> 16);
  for (const auto& outgoing : outgoing_) {
    if (outgoing->stream.ssrc() == block.ssrc) outgoing->stream.OnReport(block, now);
  }
  for (const auto& outgoing : outgoing_video_) {
    if (outgoing->stream.ssrc() == block.ssrc) {
      outgoing->stream.OnReport(block, now, host_.loop().NowMicros());
    }
  }
}

void Connection::OnNack(uint32_t media_ssrc, uint16_t sequence) {
  const auto resend = [this](Bytes kept) {
    if (kept.empty()) return;
    ++host_.tallies().resent;
    SendToPeer(kept);
  };
  for (const auto& outgoing : outgoing_) {
    if (outgoing->stream.ssrc() == media_ssrc) resend(outgoing->stream.Kept(sequence));
  }
  for (const auto& outgoing : outgoing_video_) {
    if (outgoing->stream.ssrc() != media_ssrc) continue;
    resend(outgoing->stream.Again(sequence, host_.loop().NowMicros()));
  }
}

void Connection::OnPictureLoss(uint32_t media_ssrc) {
  for (const auto& outgoing : outgoing_video_) {
    const int layer = outgoing->stream.layer();
    if (outgoing->stream.ssrc() != media_ssrc || layer < 0) continue;
    observer_->OnPictureWanted(outgoing->stream.track(), static_cast<uint8_t>(layer));
  }
}

// One for all that is sent: each of several videos is judged by its share.
void Connection::OnEstimate(int64_t bps) {
  if (outgoing_video_.empty()) return;
  const int64_t now_us = host_.loop().NowMicros();
  for (const auto& outgoing : outgoing_video_) {
    outgoing->stream.OnEstimate(bps / static_cast<int64_t>(outgoing_video_.size()), now_us);
  }
}

void Connection::AskForPicture(uint32_t tag, uint8_t layer) {
  if (srtp_ == nullptr) return;
  const int64_t now_us = host_.loop().NowMicros();
  for (const auto& incoming : incoming_) {
    if (incoming->video == nullptr || incoming->plan.tag != tag || incoming->layer != layer ||
        now_us < incoming->next_picture_us) {
      continue;
    }
    incoming->next_picture_us = now_us + kPictureEveryUs;
    RtcpWriter writer;
    writer.AddReceiverReport(own_ssrc_, {});
    writer.AddPictureLoss(own_ssrc_, incoming->stream.ssrc());
    SendRtcp(writer);
  }
}

void Connection::SetVideoWish(uint32_t track, int highest_layer) {
  if (video_wishes_.size() >= kMaxWishes && !video_wishes_.contains(track)) return;
  video_wishes_[track] = highest_layer;
  for (const auto& outgoing : outgoing_video_) {
    if (outgoing->stream.track() == track) outgoing->stream.SetWish(highest_layer);
  }
}

void Connection::LookAtVideo(int64_t now_us) {
  for (const auto& outgoing : outgoing_video_) {
    const int wanted = outgoing->stream.Tick(now_us);
    if (wanted < 0 || now_us < outgoing->next_picture_us) continue;
    outgoing->next_picture_us = now_us + kPictureEveryUs;
    observer_->OnPictureWanted(outgoing->stream.track(), static_cast<uint8_t>(wanted));
  }
}

void Connection::Arrived(uint16_t number, int64_t now_us) {
  if (arrivals_ == nullptr) arrivals_ = std::make_unique<Arrivals>();
  Arrivals& known = *arrivals_;
  const auto ahead = static_cast<uint16_t>(number - known.first);
  if (known.count == 0 || ahead >= Arrivals::kMost) {
    if (known.count > 0) {
      if (ahead >= 0x8000) return;  // from before what was reported last
      SendArrivals();
    }
    known.first = number;
    known.at_us[0] = now_us;
    known.count = 1;
    return;
  }
  for (size_t i = known.count; i < ahead; ++i) known.at_us[i] = -1;
  known.at_us[ahead] = now_us;
  known.count = std::max<size_t>(known.count, ahead + size_t{1});
}

void Connection::SendArrivals() {
  if (arrivals_ == nullptr || arrivals_->count == 0 || incoming_.empty()) return;
  RtcpWriter writer;
  writer.AddReceiverReport(own_ssrc_, {});
  writer.AddTransportFeedback(own_ssrc_, incoming_.front()->stream.ssrc(), arrivals_->first,
                              arrivals_->sent++,
                              std::span(arrivals_->at_us).first(arrivals_->count));
  arrivals_->count = 0;
  SendRtcp(writer);
}

void Connection::AskForMissing(Incoming& incoming, int64_t now_us) {
  std::array<uint16_t, kMaxNacked> missing;
  const size_t count = incoming.video != nullptr ? incoming.video->Missing(now_us, &missing)
                                                 : incoming.stream.Missing(now_us, &missing);
  if (count == 0) return;
  RtcpWriter writer;
  writer.AddReceiverReport(own_ssrc_, {});
  writer.AddNack(own_ssrc_, incoming.stream.ssrc(), std::span(missing).first(count));
  SendRtcp(writer);
}

void Connection::SendAudio(uint32_t track, uint32_t timestamp, uint32_t level, Bytes payload) {
  if (srtp_ == nullptr) return;
  for (const auto& outgoing : outgoing_) {
    if (outgoing->track != track) continue;
    std::array<uint8_t, kMaxPacket> buffer;
    const size_t header = outgoing->stream.NextHeader(timestamp, level, buffer);
    if (header + payload.size() + Srtp::kMaxTrailerBytes > buffer.size()) return;
    std::memcpy(buffer.data() + header, payload.data(), payload.size());
    const size_t size = srtp_->ProtectRtp(buffer, header + payload.size());
    if (size == 0) return;
    outgoing->stream.OnSent({buffer.data(), size}, payload.size(), host_.loop().NowMicros());
    ++host_.tallies().packets_out;
    return SendToPeer({buffer.data(), size});
  }
}

void Connection::SendVideo(uint32_t track, const VideoPacket& packet) {
  if (srtp_ == nullptr) return;
  for (const auto& outgoing : outgoing_video_) {
    if (outgoing->stream.track() != track) continue;
    const int64_t now_us = host_.loop().NowMicros();
    std::array<uint8_t, kMaxPacket> buffer;
    const size_t header = outgoing->stream.NextHeader(packet, now_us, buffer);
    const size_t whole = header + packet.payload.size();
    if (header == 0 || whole + Srtp::kMaxTrailerBytes > buffer.size()) return;
    std::memcpy(buffer.data() + header, packet.payload.data(), packet.payload.size());
    const size_t size = srtp_->ProtectRtp(buffer, whole);
    if (size == 0) return;
    outgoing->stream.OnSent({buffer.data(), size}, packet.payload.size());
    ++host_.tallies().packets_out;
    return SendToPeer({buffer.data(), size});
  }
}

void Connection::SendData(std::string_view label, Bytes message) {
  SendOrKeep(label, message, host_.loop().NowMicros());
}

void Connection::SendOrKeep(std::string_view label, Bytes message, int64_t said_us) {
  const absl::Status status =
      data_ == nullptr ? absl::NotFoundError("") : data_->Send(label, message);
  if (status.code() == absl::StatusCode::kResourceExhausted) return End(Message(status));
  if (status.code() == absl::StatusCode::kNotFound) early_.Add(label, message, said_us);
}

void Connection::OnChannelOpen(const DataChannel& channel) {
  observer_->OnChannelOpen(channel.label);
  SendEarly();
}

void Connection::SendEarly() {
  for (const EarlyData::Message& early : early_.Take()) {
    SendOrKeep(early.label, AsBytes(early.bytes), early.said_us);  // for another: it waits on
  }
}

void Connection::Tick(int64_t now_us, int64_t silence_us) {
  if (dtls_ != nullptr) dtls_->Tick();
  if (data_ != nullptr) {
    data_->Tick();
    if (data_->failed()) End("the data channels broke");
  }
  early_.Tick(now_us);
  for (const auto& incoming : incoming_) {
    if (incoming->plan.tag == ReceivePlan::kNobody) continue;
    if (incoming->video == nullptr) {
      Forward forward(*observer_, incoming->plan.tag);
      incoming->stream.Tick(now_us, forward);
    }
    if (srtp_ != nullptr) AskForMissing(*incoming, now_us);
  }
  if (srtp_ != nullptr && now_us >= next_report_us_) {
    next_report_us_ = now_us + kReportEveryUs;
    SendReports(now_us);
  }
  if (srtp_ != nullptr && now_us >= next_feedback_us_) {
    next_feedback_us_ = now_us + kFeedbackEveryUs;
    SendArrivals();
  }
  if (srtp_ != nullptr && now_us >= next_look_us_) {
    next_look_us_ = now_us + kLookEveryUs;
    LookAtVideo(now_us);
  }
  // Before the first plan nothing is to be heard of the other side.
  if (dtls_ != nullptr && now_us - heard_us_ > silence_us)
    End("nothing was heard of the other side any more");
}

void Connection::SendReports(int64_t now_us) {
  std::array<ReportBlock, kMaxStreams> blocks;
  size_t count = 0;
  for (const auto& incoming : incoming_) {
    blocks[count++] = incoming->video != nullptr ? incoming->video->Report(now_us)
                                                 : incoming->stream.Report(now_us);
  }
  std::span<const ReportBlock> left(blocks.data(), count);
  TellLink(left, now_us);
  SendSenderReports(outgoing_, left, now_us);
  SendSenderReports(outgoing_video_, left, now_us);
  if (left.empty()) return;
  RtcpWriter writer;
  writer.AddReceiverReport(own_ssrc_, left);
  SendRtcp(writer);
}

template <typename Streams>
void Connection::SendSenderReports(const Streams& streams, std::span<const ReportBlock>& left,
                                   int64_t now_us) {
  const int64_t unix_us = UnixMicros();
  for (const auto& outgoing : streams) {
    if (!outgoing->stream.started()) continue;
    RtcpWriter writer;
    writer.AddSenderReport(outgoing->stream.Report(now_us, unix_us), std::exchange(left, {}));
    writer.AddCname(outgoing->stream.ssrc(), plan_.local_ufrag);
    SendRtcp(writer);
  }
}

void Connection::TellLink(std::span<const ReportBlock> blocks, int64_t now_us) {
  LinkFigures figures;
  uint8_t lost = 0;
  uint32_t jitter = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {  // one of each incoming stream
    lost = std::max(lost, blocks[i].fraction_lost);
    if (incoming_[i]->video == nullptr) jitter = std::max(jitter, blocks[i].jitter);
  }
  uint32_t round_trip = 0;
  for (const auto& outgoing : outgoing_) {
    lost = std::max(lost, outgoing->stream.fraction_lost());
    round_trip = std::max(round_trip, outgoing->stream.round_trip());
  }
  for (const auto& outgoing : outgoing_video_) {
    lost = std::max(lost, outgoing->stream.fraction_lost());
    round_trip = std::max(round_trip, outgoing->stream.round_trip());
  }
  figures.loss = lost / 256.0;
  figures.round_trip = absl::Seconds(round_trip / 65'536.0);
  figures.jitter = absl::Seconds(jitter / 48'000.0);
  figures.silence = absl::Microseconds(now_us - heard_us_);
  observer_->OnLink(figures);
}

void Connection::SendRtcp(RtcpWriter& writer) {
  const size_t size = srtp_->ProtectRtcp(writer.buffer(), writer.packet().size());
  if (size > 0) SendToPeer({writer.buffer().data(), size});
}

void Connection::SendToPeer(Bytes datagram) {
  if (remote_) host_.SendDatagram(*remote_, datagram);
}

}  // namespace parley::webrtc
