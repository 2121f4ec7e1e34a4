#include "engines/pocketsphinx/engine.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engines/pocketsphinx/connection.h"

namespace parley::engines {
namespace {

constexpr size_t kMaxPhrases = 200;
constexpr size_t kMaxPhraseBytes = 200;

std::string DecoderPath(const PocketsphinxOptions& options) {
  if (!options.decoder.empty()) return options.decoder;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "parley-stt-decoder").string();
}

ModelPaths Models(const PocketsphinxOptions& options, bool language_model) {
  ModelPaths paths;
  paths.acoustic = options.model_dir + "/en-us";
  paths.dictionary = options.model_dir + "/cmudict-en-us.dict";
  if (language_model) paths.language = options.model_dir + "/en-us.lm.bin";
  return paths;
}

}  // namespace

class PocketsphinxEngine::Stream : public speech::SttStream {
 public:
  Stream(PocketsphinxEngine& engine, DecoderProgram& program, uint64_t id)
      : engine_(engine), program_(program), id_(id) {}
  ~Stream() override {
    if (connection_ != nullptr) {
      connection_->Close();
      program_.Kill(id_);
    }
    engine_.streams_.fetch_sub(1);
  }

  absl::Status Open(const speech::SttConfig& config, speech::SttSink sink) {
    const PocketsphinxOptions& options = engine_.options_;
    PARLEY_RETURN_IF_ERROR(program_.EnsureLoaded(options.open_timeout));
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      return Unavailable("no socket for a decoder: {}", std::strerror(errno));
    connection_ = std::make_shared<DecoderConnection>(engine_.loop_, ends[0], std::move(sink));
    ControlMessage message;
    message.type = ControlType::kOpen;
    message.stream = id_;
    message.memory_bytes = options.memory_limit_bytes;
    message.compile_cpu_s = absl::ToInt64Seconds(options.compile_cpu);
    const absl::Status asked = program_.Open(message, ends[1]);
    close(ends[1]);
    PARLEY_RETURN_IF_ERROR(asked);
    connection_->Start();
    DecoderConfig decoder;
    decoder.interim_results = config.interim_results;
    decoder.grammar = config.grammar;
    decoder.phrases = config.phrases;
    PARLEY_RETURN_IF_ERROR(connection_->Send(FrameType::kConfig, EncodeDecoderConfig(decoder)));
    return connection_->WaitReady(options.open_timeout);
  }

  absl::Status Write(std::span<const int16_t> samples) override {
    constexpr size_t kMaxSamples = kMaxFrameBytes / 2 / sizeof(int16_t);
    while (!samples.empty()) {
      const auto piece = samples.first(std::min(samples.size(), kMaxSamples));
      samples = samples.subspan(piece.size());
      PARLEY_RETURN_IF_ERROR(connection_->Send(
          FrameType::kAudio,
          {reinterpret_cast<const char*>(piece.data()), piece.size() * sizeof(int16_t)}));
    }
    return absl::OkStatus();
  }
  absl::Status EndUtterance(uint64_t utterance) override {
    return connection_->Send(FrameType::kEndUtterance, EncodeUint(utterance));
  }
  pid_t decoder_pid() const { return connection_->pid(); }
  absl::Status Reset() override { return connection_->Send(FrameType::kReset, {}); }

 private:
  PocketsphinxEngine& engine_;
  DecoderProgram& program_;
  const uint64_t id_;
  std::shared_ptr<DecoderConnection> connection_;
};

PocketsphinxEngine::PocketsphinxEngine(PocketsphinxOptions options)
    : options_(std::move(options)),
      grammars_(loop_, DecoderPath(options_), Models(options_, false)),
      free_speech_(loop_, DecoderPath(options_), Models(options_, true)),
      thread_([this] { loop_.Run(); }) {
  info_.name = "pocketsphinx";
  info_.description = "CMU pocketsphinx: commands and grammars reliably, dictation roughly";
  info_.languages = {"en-US"};
  info_.streaming = true;
  info_.embedded = true;
  info_.sample_rate_hz = 16000;
}

PocketsphinxEngine::~PocketsphinxEngine() {
  loop_.Post([this] {
    grammars_.Stop();
    free_speech_.Stop();
    loop_.Stop();
  });
  thread_.join();
}

pid_t PocketsphinxEngine::DecoderPidForTest(const speech::SttStream& stream) {
  return static_cast<const Stream&>(stream).decoder_pid();
}

absl::Status PocketsphinxEngine::Load() { return grammars_.EnsureLoaded(absl::Seconds(60)); }

absl::Status PocketsphinxEngine::Check(const speech::SttConfig& config) const {
  const std::string language = ToLower(config.language.substr(0, 2));
  if (!language.empty() && language != "en") {
    return InvalidArgument("pocketsphinx understands English (en-US) only, not \"{}\"",
                           config.language);
  }
  if (!config.model.empty() && config.model != "en-us")
    return InvalidArgument("pocketsphinx has the model en-us, not \"{}\"", config.model);
  if (!config.options.empty()) {
    return InvalidArgument("pocketsphinx has no option \"{}\"", config.options.begin()->first);
  }
  if (config.grammar.size() > speech::kMaxGrammarBytes) {
    return WithReason(InvalidArgument("grammar refused: {} bytes; at most {} are allowed",
                                      config.grammar.size(), speech::kMaxGrammarBytes),
                      "GRAMMAR_REFUSED");
  }
  if (!config.grammar.empty() && !config.phrases.empty()) {
    return InvalidArgument(
        "phrases help free speech; with a grammar they change nothing: put them into the grammar");
  }
  if (config.phrases.size() > kMaxPhrases)
    return InvalidArgument("{} phrases; at most {}", config.phrases.size(), kMaxPhrases);
  for (const std::string& phrase : config.phrases) {
    if (phrase.size() > kMaxPhraseBytes)
      return InvalidArgument("a phrase of {} bytes; at most {}", phrase.size(), kMaxPhraseBytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<speech::SttStream>> PocketsphinxEngine::Open(
    const speech::SttConfig& config, speech::SttSink sink) {
  PARLEY_RETURN_IF_ERROR(Check(config));
  if (streams_.fetch_add(1) >= options_.max_streams) {
    streams_.fetch_sub(1);
    return WithReason(
        ResourceExhausted("all {} recognisers are in use; try again, or raise --stt-max-decoders",
                          options_.max_streams),
        "TOO_MANY_STREAMS", {{"retry_after_ms", "1000"}});
  }
  DecoderProgram& program = config.grammar.empty() ? free_speech_ : grammars_;
  auto stream = std::make_unique<Stream>(*this, program, next_stream_.fetch_add(1));
  absl::Status opened = stream->Open(config, sink);
  if (absl::IsUnavailable(opened)) {
    // The program may just have died; the loop has not heard of it yet. It is started again once.
    streams_.fetch_add(1);
    stream = std::make_unique<Stream>(*this, program, next_stream_.fetch_add(1));
    opened = stream->Open(config, std::move(sink));
  }
  PARLEY_RETURN_IF_ERROR(opened);
  return stream;
}

}  // namespace parley::engines
