// Speech through bad networks: a WebRTC client speaks into a room through a relay that loses,
// delays, reorders and repeats its datagrams; what a listener makes of it is recognised and
// compared with what was said. All networks at once; PARLEY_LOSS_SECONDS for each (default 10).
#include <fmt/format.h>

#include <cstdlib>
#include <iostream>
#include <set>
#include <sstream>

#include "agent/job/listener.h"
#include "audio/opus.h"
#include "audio/pcm.h"
#include "audio/vad.h"
#include "engines/flite/flite.h"
#include "engines/pocketsphinx/engine.h"
#include "rtc_fixture.h"
#include "testing/udp_gate.h"
#include "testing/word_errors.h"

namespace parley {
namespace {

using ::parley::testing::Impairment;
using ::parley::testing::UdpGate;

constexpr int kRate = 16'000;
constexpr size_t kFrame = 320;
constexpr int kPieceSeconds = 5;  // one sentence and silence
constexpr uint32_t kTicks = 960;
constexpr auto kSentence = "one two three four five six seven eight nine ten";
constexpr auto kGrammar =
    "#JSGF V1.0; grammar numbers; public <u> = (one | two | three | four | five | six | seven | "
    "eight | nine | ten)*;";
constexpr uint64_t kSeed = 20'261'121;
constexpr double kMostOutOfStep = kRate / 10;  // samples: a tenth of a second
constexpr int64_t kLongestGap = 3;  // frames; the listener takes a longer one for a pause

struct Network {
  std::string name;
  Impairment impairment;
  double most_word_errors;  // beyond those of the clean run
  double most_concealed;    // share of frames
};

std::vector<Network> Networks() {
  const auto loss = [](double share, int burst = 1) {
    return Impairment{.loss = share, .burst = burst, .delay = absl::Milliseconds(20)};
  };
  return {
      {"clean", {}, 0, 0},
      {"1 % loss", loss(0.01), 0.05, 0.01},
      {"5 % loss", loss(0.05), 0.05, 0.02},
      {"10 % loss", loss(0.1), 0.1, 0.05},
      {"20 % loss", loss(0.2), 0.2, 0.12},
      {"5 % loss in bursts of 5", loss(0.05, 5), 0.2, 0.06},
      {"200 ms jitter", {.jitter = absl::Milliseconds(200)}, 0.05, 0.01},
      {"20 % reordered", {.reorder = 0.2}, 0.05, 0.01},
      {"20 % duplicated", {.duplicate = 0.2}, 0.05, 0},
      {"150 ms delay", {.delay = absl::Milliseconds(150)}, 0.05, 0},
      // What is asked for again comes too late.
      {"5 % loss, 150 ms delay", {.loss = 0.05, .delay = absl::Milliseconds(150)}, 0.1, 0.08},
      {"64 kbit/s", {.rate_bps = 64'000}, 0.05, 0.01},
      {"48 kbit/s", {.rate_bps = 48'000}, 0.1, 0.1},
      {"40 kbit/s", {.rate_bps = 40'000}, 0.3, 0.25},  // less than loud speech takes
  };
}

struct Outcome {
  std::vector<std::vector<int16_t>> pieces;  // as the listener heard them, kPieceSeconds each
  size_t sent = 0;                           // frames
  size_t received = 0;
  size_t out_of_order = 0;
  int64_t last = -1;             // the frame that came last
  int64_t paused = 0;            // frames missing in gaps too long to be concealed
  std::vector<double> delay_ms;  // from the microphone to the listener
  std::string words;
  UdpGate::Figures gate;
};

std::vector<int16_t> Sentence() {
  engines::FliteEngine flite;
  speech::TtsConfig config;
  config.voice = "rms";
  auto stream = flite.Open(config);
  std::vector<int16_t> samples(kRate / 4);
  speech::Cancellation cancel;
  EXPECT_TRUE((*stream)
                  ->Speak(
                      kSentence,
                      [&](std::span<const int16_t> piece, const auto&) {
                        samples.insert(samples.end(), piece.begin(), piece.end());
                        return true;
                      },
                      cancel)
                  .ok());
  EXPECT_LT(samples.size(), size_t{kRate} * kPieceSeconds - kRate / 4);
  samples.resize(size_t{kRate} * kPieceSeconds);
  return samples;
}

std::vector<std::string> Words(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

// Of sorted figures, the one below which this share lies.
double At(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
}

// By how much frames took longer in the last tenth than in the first; in their order.
double Drift(const std::vector<double>& delay_ms) {
  const size_t tenth = std::max<size_t>(delay_ms.size() / 10, 1);
  std::vector<double> first(delay_ms.begin(), delay_ms.begin() + static_cast<ptrdiff_t>(tenth));
  std::vector<double> last(delay_ms.end() - static_cast<ptrdiff_t>(tenth), delay_ms.end());
  std::ranges::sort(first);
  std::ranges::sort(last);
  return At(last, 0.5) - At(first, 0.5);
}

class RtcLossTest : public RtcTest {
 protected:
  static int Seconds() {
    const char* text = std::getenv("PARLEY_LOSS_SECONDS");
    return text == nullptr ? 2 * kPieceSeconds : std::atoi(text) / kPieceSeconds * kPieceSeconds;
  }

  // One network: a speaker and a listener in a room of their own.
  void Try(const Network& network, const std::vector<int16_t>& sentence, Outcome* outcome) {
    RtcClient client;
    auth::Claims ann = Joiner("ann", network.name);
    Signalling signalling(server(), OneConnection(Token(ann), JoinRequest(client)));
    const std::string answer = signalling.Next(lk::SignalResponse::kAnswer).answer().sdp();
    auto gate = UdpGate::Start(RtcClient::PortOf(answer), kSeed);
    ASSERT_TRUE(gate.ok()) << gate.status();
    client.via = (*gate)->port();
    (*gate)->Set(network.impairment);  // the handshakes have to come through it, too
    client.TakeAnswer(answer);
    ASSERT_TRUE(client.Run([&] { return client.connected(); }, absl::Seconds(30)));
    Peer bob = Join(Joiner("bob", network.name));
    bob.Event(pb::RoomEvent::kSubscriptionStarted);
    const size_t frames = static_cast<size_t>(Seconds()) * 50;
    std::vector<std::atomic<int64_t>> sent_us(frames);
    std::thread listener([&] { Listen(bob, sent_us, outcome); });
    auto encoder = audio::OpusEncoder::Create({.rate_hz = kRate, .expected_loss_percent = 20});
    ASSERT_TRUE(encoder.ok());
    std::vector<uint8_t> packet(audio::OpusEncoder::kMaxPacketBytes);
    const int64_t begin_us = Clock::Real().MonotonicMicros();
    EXPECT_TRUE(client.Run(
        [&] {
          const int64_t now_us = Clock::Real().MonotonicMicros();
          for (; outcome->sent < frames &&
                 now_us >= begin_us + static_cast<int64_t>(outcome->sent) * 20'000;
               ++outcome->sent) {
            const size_t at = outcome->sent * kFrame % sentence.size();
            const auto bytes = encoder->Encode(std::span(sentence).subspan(at, kFrame), packet);
            sent_us[outcome->sent] = now_us;
            client.SendAudio(static_cast<uint16_t>(outcome->sent),
                             {reinterpret_cast<const char*>(packet.data()), bytes.value_or(0)});
          }
          // A second more: what is missing at the end is asked for again, too.
          return now_us > begin_us + static_cast<int64_t>(frames) * 20'000 + 1'000'000;
        },
        absl::Seconds(Seconds() + 20)));
    listener.join();
    outcome->gate = (*gate)->figures();
  }

  static void Listen(Peer& bob, const std::vector<std::atomic<int64_t>>& sent_us,
                     Outcome* outcome) {
    agent::Listener::Sinks sinks;
    sinks.voice = [](bool, int64_t) {};
    sinks.recogniser = [&](std::string_view pcm) {
      audio::AppendSamples(pcm, outcome->pieces.back());
    };
    auto listener = agent::Listener::Create(std::move(sinks), audio::NewWebrtcVad());
    ASSERT_TRUE(listener.ok());
    outcome->pieces.emplace_back();
    (*listener)->Feed(absl::ZeroDuration());
    int64_t& last = outcome->last;
    while (last + 1 < static_cast<int64_t>(sent_us.size())) {
      const auto message = bob.Next([](const auto& m) { return m.has_audio(); }, absl::Seconds(2));
      if (!message) break;  // the last ones were lost for good
      const int64_t number = message->audio().timestamp() / kTicks;
      ++outcome->received;
      if (number <= last) ++outcome->out_of_order;
      if (const int64_t gap = number - last - 1; gap > kLongestGap) outcome->paused += gap;
      last = number;
      ASSERT_LT(static_cast<size_t>(number), sent_us.size());
      outcome->delay_ms.push_back(static_cast<double>(Clock::Real().MonotonicMicros() -
                                                      sent_us[static_cast<size_t>(number)].load()) /
                                  1000);
      while (number >= static_cast<int64_t>(outcome->pieces.size()) * kPieceSeconds * 50) {
        (*listener)->StopFeeding();
        outcome->pieces.emplace_back();
        (*listener)->Feed(absl::ZeroDuration());
      }
      (*listener)->OnOpus(message->audio().data(), message->audio().timestamp());
    }
    (*listener)->StopFeeding();
  }

  std::string Recognise(const std::vector<std::vector<int16_t>>& pieces) {
    engines::PocketsphinxOptions options;
    options.decoder = std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-stt-decoder";
    engines::PocketsphinxEngine engine(options);
    std::string all;
    for (const auto& piece : pieces) {
      speech::SttConfig config;
      config.grammar = kGrammar;
      Mutex mutex;
      CondVar changed;
      std::optional<std::string> text;
      auto stream = engine.Open(config, [&](speech::SttEvent event) {
        MutexLock lock(&mutex);
        if (auto* final = std::get_if<speech::SttFinal>(&event)) text = final->transcript.text;
        if (std::holds_alternative<speech::SttFailed>(event)) text = "";
        changed.SignalAll();
      });
      EXPECT_TRUE(stream.ok()) << stream.status();
      if (!stream.ok()) return all;
      for (std::span<const int16_t> rest(piece); !rest.empty();) {
        const auto part = rest.first(std::min(rest.size(), kFrame));
        rest = rest.subspan(part.size());
        EXPECT_TRUE((*stream)->Write(part).ok());
      }
      EXPECT_TRUE((*stream)->EndUtterance(1).ok());
      MutexLock lock(&mutex);
      for (int i = 0; i < 300 && !text; ++i) changed.WaitFor(&mutex, absl::Milliseconds(100));
      EXPECT_TRUE(text) << "nothing was recognised";
      all += text.value_or("") + " ";
    }
    return all;
  }
};

TEST_F(RtcLossTest, SpeechIsUnderstoodThroughBadNetworks) {
  const std::vector<int16_t> sentence = Sentence();
  const std::vector<Network> networks = Networks();
  std::vector<Outcome> outcomes(networks.size());
  server();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < networks.size(); ++i) {
    threads.emplace_back([&, i] { Try(networks[i], sentence, &outcomes[i]); });
  }
  for (std::thread& thread : threads) thread.join();

  std::vector<std::string> said;
  for (int i = 0; i < Seconds() / kPieceSeconds; ++i) {
    for (auto& word : Words(kSentence)) said.push_back(word);
  }
  double clean_errors = 0;
  std::cout << fmt::format(
      "| {} s each | datagrams lost | frames concealed | delay p50, p99 | drift | word errors |\n",
      Seconds());
  for (size_t i = 0; i < networks.size(); ++i) {
    Outcome& outcome = outcomes[i];
    ASSERT_GT(outcome.received, 0) << networks[i].name;
    const double errors =
        static_cast<double>(testing::WordErrors(said, Words(Recognise(outcome.pieces)))) /
        static_cast<double>(said.size());
    if (i == 0) clean_errors = errors;
    const double concealed =
        1 - static_cast<double>(outcome.received) / static_cast<double>(outcome.sent);
    const double drift_ms = Drift(outcome.delay_ms);
    std::ranges::sort(outcome.delay_ms);
    const auto percentile = [&](double share) { return At(outcome.delay_ms, share); };
    std::cout << fmt::format(
        "| {} | {} of {} | {} of {} | {:.0f}, {:.0f} ms | {:.0f} ms | {:.1f} % |\n",
        networks[i].name, outcome.gate.lost, outcome.gate.to_server + outcome.gate.to_client,
        outcome.sent - outcome.received, outcome.sent, percentile(0.5), percentile(0.99), drift_ms,
        errors * 100);
    EXPECT_LE(errors - clean_errors, networks[i].most_word_errors) << networks[i].name;
    EXPECT_LE(concealed, networks[i].most_concealed) << networks[i].name;
    EXPECT_EQ(outcome.out_of_order, 0) << networks[i].name;
    EXPECT_LT(percentile(1), 700) << networks[i].name << ": it must not fall ever further behind";
    EXPECT_LT(drift_ms, 150) << networks[i].name;
    // What the recogniser got lasts as long as what was said.
    size_t samples = 0;
    for (const auto& piece : outcome.pieces) samples += piece.size();
    EXPECT_NEAR(static_cast<double>(samples),
                static_cast<double>(outcome.last + 1 - outcome.paused) * kFrame, kMostOutOfStep)
        << networks[i].name;
  }
  EXPECT_LT(clean_errors, 0.1);
}

}  // namespace
}  // namespace parley
