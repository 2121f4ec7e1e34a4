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
constexpr size_t kMaxPacket = 1500;
constexpr size_t kMinRtp = 12;

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
  std::erase_if(outgoing_, [&](const auto& outgoing) {
    return std::ranges::none_of(
        plan.send, [&](const SendPlan& send) { return send.ssrc == outgoing->stream.ssrc(); });
  });
  for (const SendPlan& send : plan.send) {
    const bool known = std::ranges::any_of(
        outgoing_, [&](const auto& outgoing) { return outgoing->stream.ssrc() == send.ssrc; });
    if (known) continue;
    outgoing_.push_back(std::make_unique<Outgoing>(
        send.track, SendStream(send.ssrc, send.payload_type, send.audio_level_id,
                               static_cast<uint16_t>(Random32() & 0x7fff))));
  }
  plan_ = std::move(plan);
  if (dtls_->connected()) StartData();
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
const ReceivePlan* Connection::PlanOf(Bytes datagram) const {
  if (incoming_.size() >= kMaxStreams) return nullptr;  // each costs memory in libsrtp
  const uint32_t ssrc = Get32(datagram.data() + 8);
  for (const ReceivePlan& plan : plan_.receive) {
    if (std::ranges::find(plan.ssrcs, ssrc) != plan.ssrcs.end()) return &plan;
    const auto packet = ParseRtp(datagram, plan.extensions);
    if (packet && !packet->mid.empty() && packet->mid == plan.mid) return &plan;
  }
  return nullptr;
}

void Connection::TakeRtp(std::span<uint8_t> datagram) {
  const int64_t now_us = host_.loop().NowMicros();
  Incoming* incoming = datagram.size() < kMinRtp ? nullptr : Find(Get32(datagram.data() + 8));
  const ReceivePlan* plan = incoming != nullptr         ? &incoming->plan
                            : datagram.size() < kMinRtp ? nullptr
                                                        : PlanOf(datagram);
  const size_t size = plan == nullptr ? 0 : srtp_->UnprotectRtp(datagram);
  const auto packet = size == 0 ? std::nullopt : ParseRtp(datagram.first(size), plan->extensions);
  if (!packet) {
    ++host_.tallies().refused;
    return;
  }
  if (incoming == nullptr) {  // only now that the packet is known to be genuine
    incoming_.push_back(std::make_unique<Incoming>(*plan, ReceiveStream(packet->ssrc)));
    incoming = incoming_.back().get();
  }
  if (packet->transport_sequence) Arrived(*packet->transport_sequence, now_us);
  if (packet->payload_type != incoming->plan.payload_type) return;
  if (incoming->plan.tag == ReceivePlan::kNobody) return;
  ++host_.tallies().packets_in;
  Forward forward(*observer_, incoming->plan.tag);
  incoming->stream.Add(*packet, now_us, forward);
  AskForMissing(*incoming, now_us);
}

void Connection::TakeRtcp(std::span<uint8_t> datagram) {
  const size_t size = srtp_->UnprotectRtcp(datagram);
  if (size == 0 || !ReadRtcp(datagram.first(size), *this)) ++host_.tallies().refused;
}

void Connection::OnSenderReport(const SenderReport& report) {
  for (const auto& incoming : incoming_) {
    if (incoming->stream.ssrc() == report.ssrc) {
      incoming->stream.OnSenderReport(report, host_.loop().NowMicros());
    }
  }
}

void Connection::OnReportBlock(const ReportBlock& block) {
  for (const auto& outgoing : outgoing_) {
    if (outgoing->stream.ssrc() == block.ssrc) {
      outgoing->stream.OnReport(block, static_cast<uint32_t>(NtpTime(UnixMicros()) >> 16));
    }
  }
}

void Connection::OnNack(uint32_t media_ssrc, uint16_t sequence) {
  for (const auto& outgoing : outgoing_) {
    if (outgoing->stream.ssrc() != media_ssrc) continue;
    const Bytes kept = outgoing->stream.Kept(sequence);
    if (kept.empty()) return;
    ++host_.tallies().resent;
    SendToPeer(kept);
  }
}

void Connection::Arrived(uint16_t number, int64_t now_us) {
  const auto ahead = static_cast<uint16_t>(number - arrivals_.first);
  if (arrivals_.count == 0 || ahead >= Arrivals::kMost) {
    if (arrivals_.count > 0) {
      if (ahead >= 0x8000) return;  // from before what was reported last
      SendArrivals();
    }
    arrivals_.first = number;
    arrivals_.at_us[0] = now_us;
    arrivals_.count = 1;
    return;
  }
  for (size_t i = arrivals_.count; i < ahead; ++i) arrivals_.at_us[i] = -1;
  arrivals_.at_us[ahead] = now_us;
  arrivals_.count = std::max<size_t>(arrivals_.count, ahead + size_t{1});
}

void Connection::SendArrivals() {
  if (arrivals_.count == 0 || incoming_.empty()) return;
  RtcpWriter writer;
  writer.AddReceiverReport(own_ssrc_, {});
  writer.AddTransportFeedback(own_ssrc_, incoming_.front()->stream.ssrc(), arrivals_.first,
                              arrivals_.sent++, std::span(arrivals_.at_us).first(arrivals_.count));
  arrivals_.count = 0;
  SendRtcp(writer);
}

void Connection::AskForMissing(Incoming& incoming, int64_t now_us) {
  std::array<uint16_t, kMaxNacked> missing;
  const size_t count = incoming.stream.Missing(now_us, &missing);
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

void Connection::SendData(std::string_view label, Bytes message) {
  const absl::Status status =
      data_ == nullptr ? absl::NotFoundError("") : data_->Send(label, message);
  if (status.code() == absl::StatusCode::kResourceExhausted) return End(Message(status));
  // The other side is about to open the channel. One that never does so wants no data.
  if (status.code() != absl::StatusCode::kNotFound) return;
  if (early_bytes_ + message.size() > kMaxEarlyData) return;
  early_bytes_ += message.size();
  early_.emplace_back(label, Text(message));
}

void Connection::OnChannelOpen(const DataChannel& channel) {
  observer_->OnChannelOpen(channel.label);
  SendEarly();
}

void Connection::SendEarly() {
  early_bytes_ = 0;
  for (auto& [label, message] : std::exchange(early_, {})) {
    SendData(label, AsBytes(message));  // what is for another channel waits on
  }
}

void Connection::Tick(int64_t now_us, int64_t silence_us) {
  if (dtls_ != nullptr) dtls_->Tick();
  if (data_ != nullptr) {
    data_->Tick();
    if (data_->failed()) End("the data channels broke");
  }
  for (const auto& incoming : incoming_) {
    if (incoming->plan.tag == ReceivePlan::kNobody) continue;
    Forward forward(*observer_, incoming->plan.tag);
    incoming->stream.Tick(now_us, forward);
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
  // Before the first plan nothing is to be heard of the other side.
  if (dtls_ != nullptr && now_us - heard_us_ > silence_us)
    End("nothing was heard of the other side any more");
}

void Connection::SendReports(int64_t now_us) {
  std::array<ReportBlock, kMaxStreams> blocks;
  size_t count = 0;
  for (const auto& incoming : incoming_) blocks[count++] = incoming->stream.Report(now_us);
  std::span<const ReportBlock> left(blocks.data(), count);
  TellLink(left, now_us);
  const int64_t unix_us = UnixMicros();
  for (const auto& outgoing : outgoing_) {
    if (!outgoing->stream.started()) continue;
    RtcpWriter writer;
    writer.AddSenderReport(outgoing->stream.Report(now_us, unix_us), std::exchange(left, {}));
    writer.AddCname(outgoing->stream.ssrc(), plan_.local_ufrag);
    SendRtcp(writer);
  }
  if (left.empty()) return;
  RtcpWriter writer;
  writer.AddReceiverReport(own_ssrc_, left);
  SendRtcp(writer);
}

void Connection::TellLink(std::span<const ReportBlock> blocks, int64_t now_us) {
  LinkFigures figures;
  uint8_t lost = 0;
  uint32_t jitter = 0;
  for (const ReportBlock& block : blocks) {
    lost = std::max(lost, block.fraction_lost);
    jitter = std::max(jitter, block.jitter);
  }
  uint32_t round_trip = 0;
  for (const auto& outgoing : outgoing_) {
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
