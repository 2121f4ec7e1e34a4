#pragma once
// A provider of streaming recognition as Deepgram documents it (developers.deepgram.com:
// reference/speech-to-text/listen-streaming, docs/finalize, docs/audio-keep-alive,
// docs/utterance-end, docs/speech-started), that fails where a test wants it to.
#include <absl/time/time.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/strings.h"
#include "faulty_provider.h"
#include "http/server.h"
#include "testing/tcp_gate.h"

namespace parley::testing {

class DeepgramProvider {
 public:
  static constexpr char kRequestId[] = "b5f0a1c2-0d3e-4c11-9a77-c0ffee000001";
  struct Options {
    std::string transcript = "how much is a double room";  // of every utterance
    int word_ms = 200;                                     // of its audio, a word
    int partial_every_ms = 100;                            // of its audio
    int segment_words = 0;  // so many words end in a pause and are final; 0 = all of them
    absl::Duration delay = absl::Milliseconds(30);  // of every answer
    bool confirms = true;  // a Finalize with nothing left to transcribe is answered, too
    std::string language;  // that it detects
    std::string key;       // it takes no other; "" = any
  };
  struct Asked {
    std::map<std::string, std::string> query;
    std::string authorization;
  };

  explicit DeepgramProvider(Options options) : options_(std::move(options)) {
    http::WebSocketOptions guard;
    guard.refuse = [this](const http::Request& request) { return Refuse(request); };
    server_.HandleWebSocket(
        "/v1/listen",
        [this](const http::Request&, const std::shared_ptr<http::WebSocket>& socket) {
          return std::make_shared<Session>(*this, socket);
        },
        guard);
    EXPECT_TRUE(server_.Start().ok());
    auto gate = TcpGate::Start(fmt::format("127.0.0.1:{}", server_.port()));
    EXPECT_TRUE(gate.ok()) << gate.status();
    gate_ = *std::move(gate);
    thread_ = std::thread([this] { Run(); });
  }
  ~DeepgramProvider() {
    {
      MutexLock lock(&mutex_);
      stop_ = true;
      changed_.SignalAll();
    }
    thread_.join();
    server_.Stop(absl::Seconds(1));
  }
  std::string url() const { return "ws://" + gate_->address() + "/v1"; }
  TcpGate& gate() { return *gate_; }

  // The next utterance meets the fault when this part (0 to 1) of its words was heard; 429 is what
  // whoever connects next gets, and all that connect in the 300 ms after it.
  void Plan(Fault fault, double moment) {
    MutexLock lock(&mutex_);
    fault_ = fault;
    moment_ = moment;
  }
  bool met() const {
    MutexLock lock(&mutex_);
    return fault_ == Fault::kNone;
  }
  // Nothing that it has to say waits.
  bool idle() const {
    MutexLock lock(&mutex_);
    return due_.empty() && !answering_;
  }
  // Says this instead of the next answer: raw, or closes so.
  void SayNext(std::string message) {
    MutexLock lock(&mutex_);
    say_ = std::move(message);
  }
  void CloseNext(int code, std::string reason) {
    MutexLock lock(&mutex_);
    close_ = {code, std::move(reason)};
  }
  std::vector<Asked> asked() const {
    MutexLock lock(&mutex_);
    return asked_;
  }
  int controls(const std::string& type) const {  // KeepAlive, Finalize, CloseStream
    MutexLock lock(&mutex_);
    const auto it = controls_.find(type);
    return it == controls_.end() ? 0 : it->second;
  }
  int64_t audio_ms() const {
    MutexLock lock(&mutex_);
    return audio_bytes_ / 32;
  }

 private:
  // One connection; called on the server's thread, answers on the provider's.
  class Session : public http::WebSocketListener, public std::enable_shared_from_this<Session> {
   public:
    Session(DeepgramProvider& provider, std::shared_ptr<http::WebSocket> socket)
        : provider_(provider), socket_(std::move(socket)), words_(Split(Transcript(), ' ')) {}
    void OnMessage(http::WebSocketMessage message) override {
      if (mute_) return Drip();
      if (message.text) return OnControl(message.data);
      provider_.Hear(message.data.size());
      position_ms_ += static_cast<int64_t>(message.data.size()) / 32;
      if (!begun_) Begin();
      if (Broken()) return;
      const auto heard =
          std::min(words_.size(), static_cast<size_t>(UtteranceMs() / Options().word_ms));
      const auto segment = static_cast<size_t>(Options().segment_words);
      while (segment > 0 && heard - said_ >= segment) Say(said_ + segment, true, false);
      if (position_ms_ - partial_ms_ < Options().partial_every_ms || heard == said_) return;
      partial_ms_ = position_ms_;
      Say(heard, false, false);
    }
    void OnClosed() override { mute_ = true; }

   private:
    const DeepgramProvider::Options& Options() const { return provider_.options_; }
    const std::string& Transcript() const { return provider_.options_.transcript; }
    int64_t UtteranceMs() const { return position_ms_ - start_ms_; }
    void Begin() {
      begun_ = true;
      fault_ = provider_.TakeFault(&moment_);
      if (!Query("vad_events")) return;
      Answer(fmt::format(R"({{"type":"SpeechStarted","channel":[0],"timestamp":{}}})",
                         static_cast<double>(start_ms_) / 1000));
    }
    bool Query(const std::string& name) const {
      const auto asked = provider_.asked();
      return !asked.empty() && asked.back().query.contains(name);
    }
    void OnControl(const std::string& json) {
      for (const char* type : {"KeepAlive", "Finalize", "CloseStream"})
        if (json.find(type) != std::string::npos) provider_.Count(type);
      if (json.find("CloseStream") != std::string::npos) return socket_->Close(1000);
      if (json.find("Finalize") == std::string::npos) return;
      moment_ = 0;  // what has not failed yet does now
      if (begun_ && Broken()) return;
      const bool left = begun_ && said_ < words_.size();
      if (left || Options().confirms) Say(begun_ ? words_.size() : 0, true, true);
      begun_ = false;
      said_ = 0;
      start_ms_ = partial_ms_ = position_ms_;
    }
    // True when this utterance has met its fault.
    bool Broken() {
      const double all = static_cast<double>(words_.size()) * Options().word_ms;
      if (fault_ == Fault::kNone || static_cast<double>(UtteranceMs()) < moment_ * all)
        return false;
      mute_ = true;
      if (fault_ == Fault::kKill) provider_.gate_->Cut();
      if (fault_ == Fault::kEmpty) socket_->Close(1000);
      if (fault_ == Fault::kBusy) socket_->Close(1008, "too many streams");
      dripping_ = fault_ == Fault::kDrip;
      return true;
    }
    void Drip() {
      if (dripping_) socket_->Send({R"({"type":"Metadata"})", true});
    }
    // Words of the utterance that were not said finally yet, up to `until`.
    void Say(size_t until, bool final, bool finalized) {
      std::string text;
      std::string list;
      for (size_t i = said_; i < until; ++i) {
        text += (text.empty() ? "" : " ") + words_[i];
        const auto from =
            static_cast<double>(start_ms_) + static_cast<double>(i) * Options().word_ms;
        list += fmt::format(R"({}{{"word":"{}","start":{:.3f},"end":{:.3f},"confidence":0.9}})",
                            list.empty() ? "" : ",", words_[i], from / 1000,
                            (from + Options().word_ms) / 1000);
      }
      const std::string languages = Options().language.empty()
                                        ? ""
                                        : fmt::format(R"(,"languages":["{}"])", Options().language);
      const bool pause = final && (Options().segment_words > 0 || finalized);
      Answer(fmt::format(
          R"({{"type":"Results","channel_index":[0,1],"start":{:.3f},"duration":{:.3f},)"
          R"("is_final":{},"speech_final":{},"from_finalize":{},"channel":{{"alternatives":[)"
          R"({{"transcript":"{}","confidence":{},"words":[{}]{}}}]}},)"
          R"("metadata":{{"request_id":"{}"}}}})",
          static_cast<double>(start_ms_) / 1000, static_cast<double>(UtteranceMs()) / 1000, final,
          pause, finalized, text, text.empty() ? 0 : 0.9, list, languages, kRequestId));
      if (final) said_ = until;
    }
    void Answer(std::string message) {
      provider_.Later([self = shared_from_this(), message = std::move(message)] {
        self->provider_.Deliver(*self->socket_, message);
      });
    }

    DeepgramProvider& provider_;
    const std::shared_ptr<http::WebSocket> socket_;
    const std::vector<std::string> words_;
    int64_t position_ms_ = 0;
    int64_t start_ms_ = 0;  // of the utterance
    int64_t partial_ms_ = 0;
    size_t said_ = 0;  // words of it, finally
    bool begun_ = false;
    bool mute_ = false;
    bool dripping_ = false;
    Fault fault_ = Fault::kNone;
    double moment_ = 0;
  };

  std::optional<http::Response> Refuse(const http::Request& request) {
    MutexLock lock(&mutex_);
    asked_.push_back({request.query, std::string(request.Header("authorization"))});
    if (!options_.key.empty() && request.Header("authorization") != "Token " + options_.key)
      return Answer(401, R"({"err_code":"INVALID_AUTH"})");
    const int64_t now_us = Clock::Real().MonotonicMicros();
    if (std::exchange(fault_, fault_ == Fault::kBusy ? Fault::kNone : fault_) == Fault::kBusy)
      busy_until_us_ = now_us + 300'000;
    if (now_us >= busy_until_us_) return std::nullopt;
    return Answer(429, R"({"err_code":"TOO_MANY_REQUESTS"})");
  }
  static http::Response Answer(int status, const char* body) {
    return {status, "application/json", body, {{"dg-request-id", kRequestId}}};
  }
  Fault TakeFault(double* moment) {
    MutexLock lock(&mutex_);
    *moment = moment_;
    // The stream that is open is ended, and the next one refused.
    return fault_ == Fault::kBusy ? fault_ : std::exchange(fault_, Fault::kNone);
  }
  void Hear(size_t bytes) {
    MutexLock lock(&mutex_);
    audio_bytes_ += static_cast<int64_t>(bytes);
  }
  void Count(const std::string& type) {
    MutexLock lock(&mutex_);
    ++controls_[type];
  }
  void Deliver(http::WebSocket& socket, std::string message) {
    std::pair<int, std::string> close;
    {
      MutexLock lock(&mutex_);
      if (!say_.empty()) message = std::exchange(say_, {});
      close = std::exchange(close_, {});
    }
    if (close.first != 0) return socket.Close(close.first, close.second);
    socket.Send({std::move(message), true});
  }
  void Later(std::function<void()> answer) {
    MutexLock lock(&mutex_);
    due_.emplace_back(Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(options_.delay),
                      std::move(answer));
    changed_.SignalAll();
  }
  void Run() {
    MutexLock lock(&mutex_);
    while (!stop_) {
      const int64_t left_us =
          due_.empty() ? 1'000'000 : due_.front().first - Clock::Real().MonotonicMicros();
      if (left_us > 0) {
        changed_.WaitFor(&mutex_, absl::Microseconds(left_us));
        continue;
      }
      const std::function<void()> answer = std::move(due_.front().second);
      due_.erase(due_.begin());
      answering_ = true;
      mutex_.Unlock();
      answer();
      mutex_.Lock();
      answering_ = false;
    }
    due_.clear();
  }

  const Options options_;
  mutable Mutex mutex_;
  CondVar changed_;
  Fault fault_ ABSL_GUARDED_BY(mutex_) = Fault::kNone;
  double moment_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t busy_until_us_ ABSL_GUARDED_BY(mutex_) = 0;
  bool answering_ ABSL_GUARDED_BY(mutex_) = false;
  std::string say_ ABSL_GUARDED_BY(mutex_);
  std::pair<int, std::string> close_ ABSL_GUARDED_BY(mutex_);
  std::vector<Asked> asked_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> controls_ ABSL_GUARDED_BY(mutex_);
  int64_t audio_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::pair<int64_t, std::function<void()>>> due_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  Executor executor_{2, 100};
  http::Server server_{{}, executor_, log::Logger()};
  std::unique_ptr<TcpGate> gate_;
  std::thread thread_;
};

}  // namespace parley::testing
