#include "engines/wyoming/speech_to_text.h"

#include <algorithm>
#include <span>
#include <utility>

#include "audio/pcm.h"
#include "base/status.h"
#include "base/strings.h"
#include "engines/wyoming/connection.h"

namespace parley::engines {
namespace {

constexpr int kRateHz = UtteranceStreams::kRateHz;
constexpr size_t kChunkSamples = kRateHz / 10;
constexpr int kMaxEvents = 10'000;  // before its transcript

}  // namespace

WyomingStt::WyomingStt(WyomingSttOptions options)
    : options_(std::move(options)), streams_(options_.max_requests) {
  info_.name = "wyoming";
  info_.description = "Wyoming server at " + options_.address;
  info_.streaming = false;
  info_.sample_rate_hz = kRateHz;
}

absl::StatusOr<std::unique_ptr<speech::SttStream>> WyomingStt::Open(const speech::SttConfig& config,
                                                                    speech::SttSink sink) {
  if (!config.options.empty())
    return InvalidArgument("the engine wyoming has no option \"{}\"",
                           config.options.begin()->first);
  if (!config.grammar.empty()) return InvalidArgument("the engine wyoming takes no grammar");
  // The server's models know languages, not regions.
  const std::string language = config.language.substr(0, config.language.find('-'));
  return streams_.Open(
      [this, model = config.model, language](const std::vector<int16_t>& heard,
                                             const speech::Cancellation& cancel) {
        return Transcribe(model, language, heard, cancel);
      },
      config.language, std::move(sink));
}

absl::StatusOr<std::string> WyomingStt::Transcribe(const std::string& model,
                                                   const std::string& language,
                                                   const std::vector<int16_t>& heard,
                                                   const speech::Cancellation& cancel) const {
  const auto stop = [&cancel] { return cancel.cancelled(); };
  PARLEY_ASSIGN_OR_RETURN(
      wyoming::Connection server,
      wyoming::Connection::Open(options_.address, options_.connect_timeout, stop));
  const auto write = [&](const wyoming::Event& event) {
    return server.Write(event, options_.timeout, stop);
  };
  PARLEY_RETURN_IF_ERROR(write(wyoming::Transcribe(model, language)));
  PARLEY_RETURN_IF_ERROR(write(wyoming::AudioStart(kRateHz)));
  for (size_t at = 0; at < heard.size(); at += kChunkSamples) {
    const std::span<const int16_t> chunk =
        std::span<const int16_t>(heard).subspan(at, std::min(kChunkSamples, heard.size() - at));
    PARLEY_RETURN_IF_ERROR(write(wyoming::AudioChunk(kRateHz, audio::AsBytes(chunk))));
  }
  PARLEY_RETURN_IF_ERROR(write(wyoming::AudioStop()));
  for (int events = 0; events < kMaxEvents; ++events) {
    PARLEY_ASSIGN_OR_RETURN(const wyoming::Event event, server.Read(options_.timeout, stop));
    if (event.type == "transcript") return std::string(Trim(wyoming::TextOf(event, "text")));
    if (event.type == "error")
      return Unavailable("the server reports an error: {}", wyoming::ErrorName(event));
  }
  return Unavailable("the server sends everything but a transcript");
}

}  // namespace parley::engines
