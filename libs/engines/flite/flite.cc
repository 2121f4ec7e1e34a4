#include "engines/flite/flite.h"

#include <flite/flite.h>
#include <flite/flite_version.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <mutex>
#include <string>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

extern "C" {
cst_voice* register_cmu_us_slt(const char*);
cst_voice* register_cmu_us_rms(const char*);
cst_voice* register_cmu_us_awb(const char*);
cst_voice* register_cmu_us_kal(const char*);
cst_voice* register_cmu_us_kal16(const char*);
}

namespace parley::engines {
namespace {

struct Voice {
  const char* name;
  int rate_hz;
  float pitch_hz;  // the voice's mean
  const char* description;
  cst_voice* (*make)(const char*);
  cst_voice* loaded;
};

// Loaded once per process and never unloaded: the library keeps its own references. Read-only while
// speaking, so sentences of one voice may be made at the same time.
std::array<Voice, 5>& AllVoices() {
  static std::array<Voice, 5> voices = {{
      {"slt", 16000, 170, "woman, clear", register_cmu_us_slt, nullptr},
      {"rms", 16000, 105, "man, clear", register_cmu_us_rms, nullptr},
      {"awb", 16000, 130, "man, Scottish, clear", register_cmu_us_awb, nullptr},
      {"kal16", 16000, 105, "man, robotic, instant", register_cmu_us_kal16, nullptr},
      {"kal", 8000, 105, "man, robotic, telephone rate", register_cmu_us_kal, nullptr},
  }};
  static std::once_flag once;
  std::call_once(once, [] {
    flite_init();
    for (Voice& voice : voices) voice.loaded = voice.make(nullptr);
  });
  return voices;
}

// Latin letters with marks, U+00C0 to U+00FF, as the letters people would type instead.
constexpr std::string_view kPlainLetters =
    "AAAAAAACEEEEIIIIDNOOOOO OUUUUYTsaaaaaaaceeeeiiiidnooooo ouuuuyty";
constexpr size_t kMaxTokenBytes = 40;

// What the library can be given: it was written for clean ASCII, and odd bytes, long runs of
// punctuation and endless words make it write past its buffers. Everything else becomes space.
std::string CleanText(std::string_view text) {
  std::string out;
  size_t token = 0;  // bytes since the last space
  const auto put = [&](char c) {
    const bool letter_or_digit = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (c == ' ' || token >= kMaxTokenBytes) {
      if (!out.empty() && out.back() != ' ') out += ' ';
      token = 0;
      if (c == ' ') return;
    }
    // One mark of a run is as good as all of them.
    if (!letter_or_digit && !out.empty() &&
        std::isalnum(static_cast<unsigned char>(out.back())) == 0 && out.back() != ' ') {
      return;
    }
    out += c;
    ++token;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    constexpr std::string_view kMarks = ".,!?;:'\"-/%&$@+=";
    if (c < 0x80) {
      put(std::isalnum(c) != 0 || kMarks.find(text[i]) != std::string_view::npos ? text[i] : ' ');
    } else if (c == 0xC3 && i + 1 < text.size()) {
      const size_t letter = static_cast<unsigned char>(text[++i]) & 0x3F;
      put(kPlainLetters[letter]);
    } else {
      put(' ');
    }
  }
  return out;
}

struct UtteranceDeleter {
  void operator()(cst_utterance* utterance) const { delete_utterance(utterance); }
};

std::string TokenOf(const cst_item* segment) {
  // The token as it was written ("90"), not as it is spoken ("ninety").
  const cst_item* word = path_to_item(segment, "R:SylStructure.parent.parent.R:Token.parent");
  return word == nullptr ? std::string() : std::string(item_name(word));
}

std::vector<speech::WordTime> WordsOf(const cst_utterance* utterance) {
  std::vector<speech::WordTime> words;
  const cst_item* current = nullptr;
  float before = 0;
  for (const cst_item* segment = relation_head(utt_relation(utterance, "Segment"));
       segment != nullptr; segment = item_next(segment)) {
    const float end = item_feat_float(segment, "end");
    const cst_item* token = path_to_item(segment, "R:SylStructure.parent.parent.R:Token.parent");
    if (token != nullptr) {
      if (current == nullptr || item_equal(token, current) == 0) {
        speech::WordTime word;
        word.word = TokenOf(segment);
        word.start_ms = static_cast<int32_t>(before * 1000);
        words.push_back(std::move(word));
      }
      words.back().end_ms = static_cast<int32_t>(end * 1000);
    }
    current = token;
    before = end;
  }
  return words;
}

// What a running synthesis hands out.
struct Delivery {
  const speech::TtsSink* sink;
  const speech::Cancellation* cancel;
  int rate_hz;
  size_t sent = 0;
  bool stopped = false;
  bool timed = false;
  std::vector<speech::WordTime> words;  // not yet handed out

  bool Give(std::span<const int16_t> samples) {
    if (cancel->cancelled()) stopped = true;
    if (stopped) return false;
    sent += samples.size();
    const auto until = static_cast<int64_t>(sent) * 1000 / rate_hz;
    const auto next = std::find_if(words.begin(), words.end(),
                                   [until](const auto& word) { return word.start_ms >= until; });
    const std::vector<speech::WordTime> begun(words.begin(), next);
    words.erase(words.begin(), next);
    if (!(*sink)(samples, begun)) stopped = true;
    return !stopped;
  }
};

extern "C" int OnAudio(const cst_wave* wave, int start, int size, int /*last*/,
                       cst_audio_streaming_info* info) {
  auto& delivery = *static_cast<Delivery*>(info->userdata);
  if (!delivery.timed && info->utt != nullptr) {
    delivery.timed = true;
    delivery.words = WordsOf(info->utt);
  }
  const std::span<const int16_t> samples(wave->samples + start, static_cast<size_t>(size));
  return delivery.Give(samples) ? CST_AUDIO_STREAM_CONT : CST_AUDIO_STREAM_STOP;
}

class FliteStream : public speech::TtsStream {
 public:
  FliteStream(const Voice& voice, double rate, double pitch)
      : voice_(voice), rate_(rate), pitch_(pitch) {}
  int sample_rate_hz() const override { return voice_.rate_hz; }

  absl::Status Speak(std::string_view sentence, const speech::TtsSink& sink,
                     const speech::Cancellation& cancel) override {
    if (cancel.cancelled()) return Cancelled("cancelled before it was spoken");
    Delivery delivery{&sink, &cancel, voice_.rate_hz};
    const std::unique_ptr<cst_utterance, UtteranceDeleter> utterance(new_utterance());
    const std::string text = CleanText(sentence);
    if (std::none_of(text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c); }))
      return absl::OkStatus();  // nothing in it that this voice can say
    utt_set_input_text(utterance.get(), text.c_str());
    // On the utterance, not on the voice: voices are shared.
    feat_set_float(utterance->features, "duration_stretch", static_cast<float>(1 / rate_));
    if (pitch_ != 1) {
      feat_set_float(utterance->features, "int_f0_target_mean",
                     voice_.pitch_hz * static_cast<float>(pitch_));
    }
    cst_audio_streaming_info* info = new_audio_streaming_info();
    info->min_buffsize = voice_.rate_hz / 50;
    info->asc = &OnAudio;
    info->userdata = &delivery;
    feat_set(utterance->features, "streaming_info", audio_streaming_info_val(info));
    if (flite_do_synth(utterance.get(), voice_.loaded, utt_synth) == nullptr)
      return Unavailable("flite cannot speak this sentence");
    if (cancel.cancelled()) return Cancelled("cancelled while it was spoken");
    if (delivery.stopped) return absl::OkStatus();
    const cst_wave* wave = utt_wave(utterance.get());
    if (delivery.sent == 0 && wave != nullptr && wave->num_samples > 0) {
      delivery.words = WordsOf(utterance.get());
      delivery.Give({wave->samples, static_cast<size_t>(wave->num_samples)});
    }
    return absl::OkStatus();
  }

 private:
  const Voice& voice_;
  const double rate_;
  const double pitch_;
};

}  // namespace

FliteEngine::FliteEngine() { AllVoices(); }
FliteEngine::~FliteEngine() = default;

std::string FliteEngine::version() const { return FLITE_PROJECT_VERSION; }

std::vector<speech::TtsVoiceInfo> FliteEngine::Voices() const {
  std::vector<speech::TtsVoiceInfo> voices;
  for (const Voice& voice : AllVoices())
    voices.push_back({voice.name, "en-US", voice.rate_hz, voice.description});
  return voices;
}

absl::StatusOr<std::unique_ptr<speech::TtsStream>> FliteEngine::Open(
    const speech::TtsConfig& config) {
  PARLEY_RETURN_IF_ERROR(speech::CheckTtsConfig(config));
  if (!config.options.empty())
    return InvalidArgument("flite has no option \"{}\"", config.options.begin()->first);
  if (!config.language.empty() && ToLower(config.language.substr(0, 2)) != "en")
    return InvalidArgument("flite speaks English only, not \"{}\"", config.language);
  const std::string name = config.voice.empty() ? "slt" : config.voice;
  for (const Voice& voice : AllVoices()) {
    if (name == voice.name) return std::make_unique<FliteStream>(voice, config.rate, config.pitch);
  }
  return speech::UnknownVoice("flite", name, "slt, rms, awb, kal16, kal");
}

}  // namespace parley::engines
