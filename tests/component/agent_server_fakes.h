#pragma once
// A broker, a room server and gateways for tests of the agent server: they do as the test says and
// write down what they see.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "parley/dispatch/v1/worker.grpc.pb.h"
#include "parley/llm/v1/llm.grpc.pb.h"
#include "parley/room/v1/room.grpc.pb.h"
#include "parley/speech/v1/speech.grpc.pb.h"

namespace parley::agent::testing_fakes {

namespace dispatchv1 = parley::dispatch::v1;
namespace roomv1 = parley::room::v1;

// Things that happened, in order; tests wait for one.
template <typename T>
class Journal {
 public:
  void Add(T item) {
    std::lock_guard lock(mutex_);
    items_.push_back(std::move(item));
    changed_.notify_all();
  }
  // The first that matches, taken out; nothing after `seconds`.
  std::optional<T> Await(const std::function<bool(const T&)>& match, double seconds = 30) {
    std::unique_lock lock(mutex_);
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    for (;;) {
      for (auto it = items_.begin(); it != items_.end(); ++it) {
        if (!match(*it)) continue;
        T found = std::move(*it);
        items_.erase(it);
        return found;
      }
      if (changed_.wait_until(lock, until) == std::cv_status::timeout) return std::nullopt;
    }
  }
  // Forgets all that match.
  void Drop(const std::function<bool(const T&)>& match) {
    std::lock_guard lock(mutex_);
    std::erase_if(items_, match);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> items_;
};

class FakeBroker final : public dispatchv1::WorkerService::Service {
 public:
  Journal<dispatchv1::Register> registers;
  Journal<dispatchv1::Word> words;
  Journal<dispatchv1::Heartbeat> heartbeats;
  Journal<dispatchv1::WorkerDrain> drains;
  Journal<dispatchv1::Checkpoint> checkpoints;
  Journal<dispatchv1::ReportDeathRequest> deaths;
  Journal<dispatchv1::JobLogChunk> logs;
  Journal<dispatchv1::HeldRecordings> held;
  // What a word is answered with; nothing: not at all.
  std::function<std::optional<dispatchv1::WordVerdict>(const dispatchv1::Word&)> judge =
      [](const dispatchv1::Word&) { return dispatchv1::WordVerdict(); };
  std::function<void(const dispatchv1::Register&, dispatchv1::Registered&)> on_register;
  std::atomic<bool> store_available{true};  // as heartbeats are answered
  // Not OK: the registration is refused with it.
  std::function<grpc::Status(const dispatchv1::Register&)> admit;

  bool Send(const dispatchv1::ConnectResponse& response) {
    std::lock_guard lock(mutex_);
    return stream_ != nullptr && stream_->Write(response);
  }
  void Cut() {
    std::lock_guard lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }
  void Go(const std::string& job, uint64_t token, const std::string& script,
          const std::string& definition = "",
          const std::map<std::string, std::string>& attributes = {}) {
    dispatchv1::ConnectResponse response;
    dispatchv1::Go& go = *response.mutable_go();
    go.set_job_id(job);
    go.set_fencing_token(token);
    go.set_definition_json(definition);
    go.set_room_token("token-of-" + job);
    go.mutable_assignment()->set_job_id(job);
    go.mutable_assignment()->set_fencing_token(token);
    go.mutable_assignment()->set_attempt(1);
    go.mutable_assignment()->set_project("hotel");
    go.mutable_assignment()->set_session_id("AS_" + job);
    go.mutable_assignment()->set_agent_name("tester");
    go.mutable_assignment()->set_room("lobby");
    go.mutable_assignment()->set_metadata(script);
    go.mutable_assignment()->mutable_attributes()->insert(attributes.begin(), attributes.end());
    Send(response);
  }
  std::optional<dispatchv1::Word> AwaitWord(const std::string& job, dispatchv1::Word::Kind kind,
                                            double seconds = 30) {
    return words.Await(
        [&](const dispatchv1::Word& w) { return w.job_id() == job && w.kind() == kind; }, seconds);
  }

  grpc::Status Connect(grpc::ServerContext* context,
                       grpc::ServerReaderWriter<dispatchv1::ConnectResponse,
                                                dispatchv1::ConnectRequest>* stream) override {
    dispatchv1::ConnectRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    if (admit) {
      const grpc::Status status = admit(request.register_());
      if (!status.ok()) return status;
    }
    dispatchv1::ConnectResponse registered;
    registered.mutable_registered()->set_pool(request.register_().pool());
    if (on_register) on_register(request.register_(), *registered.mutable_registered());
    {
      std::lock_guard lock(mutex_);
      stream_ = stream;
      context_ = context;
      stream->Write(registered);
    }
    registers.Add(request.register_());
    while (stream->Read(&request)) OnRequest(request);
    std::lock_guard lock(mutex_);
    if (stream_ == stream) {
      stream_ = nullptr;
      context_ = nullptr;
    }
    return grpc::Status::OK;
  }
  grpc::Status ReportDeath(grpc::ServerContext*, const dispatchv1::ReportDeathRequest* request,
                           dispatchv1::ReportDeathResponse* response) override {
    deaths.Add(*request);
    response->set_ended(true);
    return grpc::Status::OK;
  }

 private:
  void OnRequest(const dispatchv1::ConnectRequest& request) {
    if (request.has_drain()) drains.Add(request.drain());
    if (request.has_log()) logs.Add(request.log());
    if (request.has_held_recordings()) held.Add(request.held_recordings());
    if (request.has_heartbeat()) {
      heartbeats.Add(request.heartbeat());
      dispatchv1::ConnectResponse response;
      response.mutable_heartbeat_ack()->set_seq(request.heartbeat().seq());
      response.mutable_heartbeat_ack()->set_store_available(store_available);
      Send(response);
    }
    for (const auto& checkpoint : request.checkpoints().checkpoints()) checkpoints.Add(checkpoint);
    dispatchv1::ConnectResponse response;
    for (const dispatchv1::Word& word : request.words().words()) {
      words.Add(word);
      std::optional<dispatchv1::WordVerdict> verdict = judge(word);
      if (!verdict.has_value()) continue;
      verdict->set_job_id(word.job_id());
      verdict->set_fencing_token(word.fencing_token());
      verdict->set_kind(word.kind());
      if (verdict->outcome() == dispatchv1::WordVerdict::OUTCOME_UNSPECIFIED) {
        const bool ended = word.kind() == dispatchv1::Word::ENDED;
        verdict->set_outcome(ended ? dispatchv1::WordVerdict::RECORDED
                                   : dispatchv1::WordVerdict::OK);
        if (ended) verdict->set_state(dispatchv1::JOB_STATE_SUCCEEDED);
      }
      *response.mutable_verdicts()->add_verdicts() = *verdict;
    }
    if (response.has_verdicts()) Send(response);
  }

  std::mutex mutex_;
  grpc::ServerReaderWriter<dispatchv1::ConnectResponse, dispatchv1::ConnectRequest>* stream_ =
      nullptr;
  grpc::ServerContext* context_ = nullptr;
};

// Opens every session, sends every frame back to its session, and notes commands.
class FakeRooms final : public roomv1::MediaService::Service {
 public:
  Journal<roomv1::OpenSession> opens;
  Journal<roomv1::SessionCommand> commands;
  std::string elsewhere;  // not empty: sessions are sent there

  void Cut() {
    std::lock_guard lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }
  grpc::Status Attach(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<roomv1::AttachResponse, roomv1::AttachRequest>* stream) override {
    {
      std::lock_guard lock(mutex_);
      context_ = context;
    }
    roomv1::AttachRequest request;
    while (stream->Read(&request)) {
      roomv1::AttachResponse response;
      if (request.has_open()) {
        opens.Add(request.open());
        if (elsewhere.empty()) {
          response.mutable_opened()->set_session(request.open().session());
          response.mutable_opened()->mutable_joined()->mutable_participant()->set_identity("me");
          response.mutable_opened()->mutable_joined()->add_others()->set_identity("caller");
        } else {
          response.mutable_closed()->set_session(request.open().session());
          response.mutable_closed()->set_code(9);
          response.mutable_closed()->set_reason("ROOM_ELSEWHERE");
          response.mutable_closed()->set_media_url(elsewhere);
        }
        stream->Write(response);
      } else if (request.has_command()) {
        commands.Add(request.command());
      } else if (request.has_frames()) {
        *response.mutable_frames() = request.frames();
        stream->Write(response);
      }
    }
    std::lock_guard lock(mutex_);
    if (context_ == context) context_ = nullptr;
    return grpc::Status::OK;
  }

 private:
  std::mutex mutex_;
  grpc::ServerContext* context_ = nullptr;
};

class FakeStt final : public parley::speech::v1::SpeechToTextService::Service {
 public:
  Journal<parley::speech::v1::RecognizeConfig> configs;
  Journal<std::string> peers;  // the connection of each stream
  grpc::Status Recognize(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<parley::speech::v1::RecognizeResponse,
                               parley::speech::v1::RecognizeRequest>* stream) override {
    peers.Add(context->peer());
    parley::speech::v1::RecognizeRequest request;
    size_t bytes = 0;
    while (stream->Read(&request)) {
      if (request.has_config()) configs.Add(request.config());
      bytes += request.audio().size();
      if (!request.has_end_utterance()) continue;
      parley::speech::v1::RecognizeResponse response;
      response.mutable_final()->set_text("heard " + std::to_string(bytes));
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
};

class FakeTts final : public parley::speech::v1::TextToSpeechService::Service {
 public:
  grpc::Status Synthesize(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<parley::speech::v1::SynthesizeResponse,
                               parley::speech::v1::SynthesizeRequest>* stream) override {
    parley::speech::v1::SynthesizeRequest request;
    std::string text;
    while (stream->Read(&request)) text += request.text();
    parley::speech::v1::SynthesizeResponse response;
    response.mutable_audio()->set_data("audio of " + text);
    stream->Write(response);
    return grpc::Status::OK;
  }
};

class FakeLlm final : public parley::llm::v1::LanguageModelService::Service {
 public:
  Journal<parley::llm::v1::ChatRequest> requests;
  grpc::Status Chat(grpc::ServerContext*, const parley::llm::v1::ChatRequest* request,
                    grpc::ServerWriter<parley::llm::v1::ChatResponse>* writer) override {
    requests.Add(*request);
    if (request->models_size() == 0) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no model");
    }
    for (const char* word : {"good ", "day"}) {
      parley::llm::v1::ChatResponse response;
      response.mutable_text()->set_text(word);
      writer->Write(response);
    }
    parley::llm::v1::ChatResponse done;
    done.mutable_done()->set_finish_reason("stop");
    writer->Write(done);
    return grpc::Status::OK;
  }
};

// All of it on one port.
class FakeCluster {
 public:
  FakeBroker broker;
  FakeRooms rooms;
  FakeStt stt;
  FakeTts tts;
  FakeLlm llm;

  FakeCluster() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    // As rpc/server.cc: channels ask a silent server every 2 s.
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1'000);
    for (grpc::Service* service :
         std::initializer_list<grpc::Service*>{&broker, &rooms, &stt, &tts, &llm}) {
      builder.RegisterService(service);
    }
    server_ = builder.BuildAndStart();
    address = "127.0.0.1:" + std::to_string(port);
  }
  ~FakeCluster() { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address;

 private:
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace parley::agent::testing_fakes
