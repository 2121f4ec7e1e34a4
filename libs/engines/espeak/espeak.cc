#include "engines/espeak/espeak.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engines/espeak/child.h"

namespace parley::engines {
namespace {

constexpr int kSampleRateHz = 22050;
constexpr int kWordsPerMinute = 170;  // at rate 1
constexpr int kPitch = 50;            // at pitch 1; 0 to 99
constexpr size_t kWavHeaderBytes = 44;

class EspeakStream : public speech::TtsStream {
 public:
  EspeakStream(EspeakOptions options, std::vector<std::string> arguments)
      : options_(std::move(options)), arguments_(std::move(arguments)) {}
  int sample_rate_hz() const override { return kSampleRateHz; }

  absl::Status Speak(std::string_view sentence, const speech::TtsSink& sink,
                     const speech::Cancellation& cancel) override {
    size_t header = 0;  // bytes of the WAV header seen so far
    std::string rest;   // half a sample
    const auto on_output = [&](std::string_view bytes) {
      const size_t skip = std::min(bytes.size(), kWavHeaderBytes - header);
      header += skip;
      rest += bytes.substr(skip);
      std::vector<int16_t> samples(rest.size() / sizeof(int16_t));
      std::memcpy(samples.data(), rest.data(), samples.size() * sizeof(int16_t));
      rest.erase(0, samples.size() * sizeof(int16_t));
      return samples.empty() || sink(samples, {});
    };
    return RunChild(arguments_, sentence, options_.sentence_timeout, cancel, on_output);
  }

 private:
  const EspeakOptions options_;
  const std::vector<std::string> arguments_;
};

}  // namespace

std::vector<speech::TtsVoiceInfo> ParseEspeakVoices(std::string_view table) {
  // Pty Language Age/Gender VoiceName File …
  std::vector<speech::TtsVoiceInfo> voices;
  for (const std::string& line : Split(table, '\n')) {
    std::vector<std::string> columns;
    for (std::string& column : Split(line, ' ')) {
      if (!column.empty()) columns.push_back(std::move(column));
    }
    if (columns.size() < 5 || columns[0] == "Pty") continue;
    std::string description = columns[3];
    std::replace(description.begin(), description.end(), '_', ' ');
    voices.push_back({columns[1], columns[1], kSampleRateHz, description});
  }
  return voices;
}

EspeakEngine::EspeakEngine(EspeakOptions options) : options_(std::move(options)) {}
EspeakEngine::~EspeakEngine() = default;

absl::StatusOr<std::vector<speech::TtsVoiceInfo>> EspeakEngine::Known() const {
  MutexLock lock(&mutex_);
  if (!voices_.empty()) return voices_;
  std::string table;
  const speech::Cancellation never;
  const absl::Status asked = RunChild({options_.binary, "--voices"}, {}, options_.sentence_timeout,
                                      never, [&table](std::string_view bytes) {
                                        table += bytes;
                                        return true;
                                      });
  if (!asked.ok()) {
    return Annotate(asked,
                    "espeak-ng is not usable (install the package espeak-ng, or name it with "
                    "--tts-espeak)");
  }
  voices_ = ParseEspeakVoices(table);
  if (voices_.empty()) return Unavailable("{} lists no voices", options_.binary);
  return voices_;
}

std::vector<speech::TtsVoiceInfo> EspeakEngine::Voices() const {
  auto voices = Known();
  return voices.ok() ? *std::move(voices) : std::vector<speech::TtsVoiceInfo>();
}

absl::StatusOr<std::unique_ptr<speech::TtsStream>> EspeakEngine::Open(
    const speech::TtsConfig& config) {
  PARLEY_RETURN_IF_ERROR(speech::CheckTtsConfig(config));
  if (!config.options.empty())
    return InvalidArgument("espeak has no option \"{}\"", config.options.begin()->first);
  PARLEY_ASSIGN_OR_RETURN(const std::vector<speech::TtsVoiceInfo> voices, Known());
  std::string name = ToLower(!config.voice.empty()      ? config.voice
                             : !config.language.empty() ? config.language
                                                        : std::string("en-us"));
  const auto has = [&voices](std::string_view wanted) {
    return std::any_of(voices.begin(), voices.end(),
                       [wanted](const auto& voice) { return ToLower(voice.voice) == wanted; });
  };
  // "de-DE" is served by "de".
  if (!has(name) && config.voice.empty()) name = name.substr(0, name.find('-'));
  if (!has(name)) {
    return speech::UnknownVoice("espeak", name,
                                fmt::format("{} languages, see ListVoices", voices.size()));
  }
  const auto pitch = static_cast<int>(std::lround(kPitch * config.pitch));
  return std::make_unique<EspeakStream>(
      options_, std::vector<std::string>{options_.binary, "--stdin", "--stdout", "-v", name, "-s",
                                         std::to_string(std::lround(kWordsPerMinute * config.rate)),
                                         "-p", std::to_string(std::min(pitch, 99))});
}

}  // namespace parley::engines
