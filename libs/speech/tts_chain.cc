#include "speech/tts_chain.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <optional>
#include <utility>

#include "base/status.h"
#include "speech/align.h"

namespace parley::speech {
namespace {

constexpr size_t kTellingLetters = 30;
// A word that is broken off is said again rather than lost, unless so much of it was heard.
constexpr double kNearlyAll = 0.75;
// Which word it is that was spoken last is known less well the less of it is there.
constexpr int64_t kSureMs = 250;
constexpr absl::Duration kPauseSlack = absl::Milliseconds(100);

bool SameLetter(char a, char b) {
  return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
}

// Where the word after `word` begins, looking from `at`; `at` itself when it is not there.
size_t After(std::string_view text, size_t at, std::string_view word) {
  if (word.empty()) return at;
  const auto found = std::search(text.begin() + static_cast<std::ptrdiff_t>(at), text.end(),
                                 word.begin(), word.end(), SameLetter);
  if (found == text.end()) return at;
  const size_t end = static_cast<size_t>(found - text.begin()) + word.size();
  const size_t space = text.find(' ', end);
  return space == std::string_view::npos ? text.size() : space + 1;
}

// Where a reader is after `ms`.
size_t Estimate(std::string_view text, int64_t ms) {
  size_t words = static_cast<size_t>(ms * TtsChain::kWordsPerMinute / 60'000);
  size_t at = 0;
  while (words-- > 0 && at < text.size()) {
    const size_t space = text.find(' ', at);
    at = space == std::string_view::npos ? text.size() : space + 1;
  }
  return at;
}

}  // namespace

// A sentence as the reference says it.
struct TtsChain::Reference {
  bool asked = false;
  std::vector<int16_t> samples;
  std::vector<WordTime> words;  // empty: it could not
  int rate_hz = 0;
};

// Where a voice is broken off.
struct TtsChain::Border {
  size_t samples = 0;  // of its speech are played
  size_t text = 0;     // where the next voice goes on
};

// One voice's share of a sentence.
class TtsChain::Progress {
 public:
  struct Rules {
    bool hold = false;                                          // there is another voice to go to
    int64_t patience_us = std::numeric_limits<int64_t>::max();  // for its first audio
    int64_t pause_us = std::numeric_limits<int64_t>::max();     // longer than it usually pauses
    bool remote = false;
  };

  Progress(int rate_hz, int64_t start_ms, Rules rules, Clock& clock, const TtsSink& sink)
      : rate_hz_(rate_hz),
        start_ms_(start_ms),
        rules_(rules),
        clock_(clock),
        sink_(sink),
        begun_us_(clock.MonotonicMicros()) {}

  // False: enough, or it has failed (late()).
  bool Take(audio::Resampler& resampler, std::span<const int16_t> samples,
            const std::vector<WordTime>& words) {
    const int64_t now_us = clock_.MonotonicMicros();
    if (!samples.empty()) {
      if (first_us_ == 0) first_us_ = now_us;
      const size_t before = held_.size();
      resampler.Append(samples, held_);
      Mark(now_us);
      if (rules_.hold && rules_.remote && heard_.size() < static_cast<size_t>(rate_hz_) * kKeptS)
        heard_.insert(heard_.end(), held_.begin() + static_cast<std::ptrdiff_t>(before),
                      held_.end());
      words_.insert(words_.end(), words.begin(), words.end());
    } else if (IsLate(now_us)) {
      late_ = true;
      return false;
    }
    if (!rules_.hold) return HandOut(received());
    return HandOut(blind() ? Near(now_us) : WholeWords());
  }
  bool Finish() { return HandOut(received()); }

  bool late() const { return late_; }
  // How long its first audio took, or has not come.
  absl::Duration first_took() const {
    return absl::Microseconds((first_us_ == 0 ? clock_.MonotonicMicros() : first_us_) - begun_us_);
  }
  bool silent() const { return first_us_ == 0; }
  bool blind() const { return said_.empty() && words_.empty(); }
  // It pauses for longer than it usually does, and nobody has looked for a border yet.
  bool StallsAnew() {
    if (!rules_.hold || !rules_.remote || !blind() || silent() || looked_ ||
        clock_.MonotonicMicros() - mark_us_ <= rules_.pause_us) {
      return false;
    }
    looked_ = true;
    return true;
  }
  // Nothing after it is played unless more comes.
  void Hold(const Border& border) {
    if (border.samples >= handed_out_) hold_ = border;
  }
  const std::optional<Border>& hold() const { return hold_; }
  int64_t longest_pause_us() const { return longest_pause_us_; }
  int64_t handed_out_ms() const { return MsOf(handed_out_); }
  int64_t received_ms() const { return MsOf(received()); }
  Speech heard() const { return {heard_, rate_hz_}; }

  // Where in `text` the next voice begins.
  size_t ResumeAt(std::string_view text) const {
    if (handed_out_ == 0) return 0;
    if (blind()) return Estimate(text, handed_out_ms());
    size_t at = 0;
    for (const WordTime& word : said_) at = After(text, at, word.word);
    return at;
  }
  // The same for a blind voice whose words begin at `starts`: the last border that still can be
  // kept.
  Border FindBorder(std::string_view text, const std::vector<int32_t>& starts,
                    const std::vector<WordTime>& words) const {
    size_t whole = starts.size();  // words before the border
    for (size_t i = starts.size(); i-- > 0 && starts[i] >= handed_out_ms();) {
      whole = i;
      if (received_ms() - starts[i] >= kSureMs) break;
    }
    Border border{handed_out_, 0};
    if (whole < starts.size()) {
      border.samples =
          std::clamp(static_cast<size_t>(starts[whole]) * static_cast<size_t>(rate_hz_) / 1000,
                     handed_out_, received());
    } else {
      // The last word that has begun is being heard already, and breaks off.
      --whole;
      // In this voice's time: as long as the words before it were.
      const int64_t reference_ms = words[whole].start_ms - words.front().start_ms;
      const double slower = reference_ms > 0 ? static_cast<double>(starts.back() - starts.front()) /
                                                   static_cast<double>(reference_ms)
                                             : 1;
      const double length_ms = slower * (words[whole].end_ms - words[whole].start_ms);
      if (static_cast<double>(received_ms() - starts.back()) > kNearlyAll * length_ms) {
        border.samples = received();
        ++whole;
      }
    }
    for (size_t i = 0; i < whole; ++i) border.text = After(text, border.text, words[i].word);
    return border;
  }
  void BreakAt(const Border& border) { HandOut(std::max(border.samples, handed_out_)); }

 private:
  static constexpr size_t kKeptS = 30;
  static constexpr int64_t kMarkMs = 20;

  // What drips does not count as coming.
  void Mark(int64_t now_us) {
    if (MsOf(received() - marked_) < kMarkMs) return;
    if (marked_ > 0) longest_pause_us_ = std::max(longest_pause_us_, now_us - mark_us_);
    marked_ = received();
    mark_us_ = now_us;
    looked_ = false;
    hold_.reset();
  }
  int64_t MsOf(size_t samples) const { return static_cast<int64_t>(samples) * 1000 / rate_hz_; }
  size_t received() const { return handed_out_ + held_.size(); }
  size_t playable() const { return hold_ ? hold_->samples : received(); }
  bool IsLate(int64_t now_us) const {
    if (!rules_.hold || !rules_.remote) return false;
    if (first_us_ == 0) return now_us - begun_us_ > rules_.patience_us;
    return now_us - first_us_ > MsOf(playable()) * 1000 + absl::ToInt64Microseconds(kDry);
  }
  // Up to here all words are whole.
  size_t WholeWords() const {
    const int64_t ms = MsOf(received());
    for (const WordTime& word : words_) {
      if (word.end_ms <= ms) continue;
      return std::clamp(
          static_cast<size_t>(std::max(word.start_ms, 0)) * static_cast<size_t>(rate_hz_) / 1000,
          handed_out_, received());
    }
    return received();
  }
  // What the listener needs soon.
  size_t Near(int64_t now_us) const {
    const absl::Duration soon = absl::Microseconds(now_us - first_us_) + kAhead;
    const auto until = static_cast<size_t>(absl::ToInt64Milliseconds(soon) * rate_hz_ / 1000);
    return std::clamp(until, handed_out_, playable());
  }
  bool HandOut(size_t until) {
    const size_t count = until - handed_out_;
    if (count == 0) return true;
    const int64_t until_ms = MsOf(until);
    std::vector<WordTime> begun;
    while (!words_.empty() && words_.front().start_ms < until_ms) {
      WordTime word = std::move(words_.front());
      words_.erase(words_.begin());
      said_.push_back(word);
      word.start_ms += static_cast<int32_t>(start_ms_);
      word.end_ms += static_cast<int32_t>(start_ms_);
      begun.push_back(std::move(word));
    }
    handed_out_ = until;
    const bool more = sink_(std::span<const int16_t>(held_).first(count), begun);
    held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(count));
    return more;
  }

  const int rate_hz_;
  const int64_t start_ms_;
  const Rules rules_;
  Clock& clock_;
  const TtsSink& sink_;
  const int64_t begun_us_;
  int64_t first_us_ = 0;  // 0: no audio yet
  bool late_ = false;
  std::vector<int16_t> held_;
  std::vector<int16_t> heard_;   // all of it, for aligning; the first kKeptS
  std::vector<WordTime> words_;  // of what is held
  std::vector<WordTime> said_;
  size_t handed_out_ = 0;  // samples
  size_t marked_ = 0;      // samples that had come …
  int64_t mark_us_ = 0;    // … by then
  int64_t longest_pause_us_ = 0;
  bool looked_ = false;  // for a border, since then
  std::optional<Border> hold_;
};

TtsChain::TtsChain(const EngineTable<TtsEngine>& engines, Breakers& breakers, Options options)
    : engines_(engines), breakers_(breakers), options_(std::move(options)) {}

std::string TtsChain::KeyOf(size_t index) const { return options_.voices[index].engine; }

bool TtsChain::embedded(size_t index) const {
  const absl::StatusOr<TtsEngine*> found = engines_.Find(options_.voices[index].engine);
  return found.ok() && (*found)->embedded();
}

absl::Status TtsChain::Open() {
  ChainErrors errors;
  for (size_t index = 0; index < options_.voices.size(); ++index) {
    absl::Status opened = OpenOne(index);
    if (opened.ok()) {
      options_.serves(engine_, errors.empty() ? opened : errors.Result());
      return opened;
    }
    if (!errors.Add(options_.voices[index].engine, opened)) break;
  }
  return errors.Result();
}

absl::Status TtsChain::OpenOne(size_t index) {
  const TtsConfig& config = options_.voices[index];
  PARLEY_ASSIGN_OR_RETURN(TtsEngine * found, engines_.Find(config.engine));
  const bool guarded = !found->embedded();
  if (guarded && !breakers_.Allow(KeyOf(index)))
    return Unavailable("{} failed lately and is not asked for now", config.engine);
  absl::StatusOr<std::unique_ptr<TtsStream>> opened = found->Open(With(config, prosody_));
  if (absl::IsInvalidArgument(opened.status()) && prosody_ != Prosody())
    opened = found->Open(config);
  if (guarded && !opened.ok()) breakers_.Report(KeyOf(index), opened.status());
  PARLEY_RETURN_IF_ERROR(opened.status());
  const int rate_hz = sample_rate_hz_ == 0 ? (*opened)->sample_rate_hz() : sample_rate_hz_;
  PARLEY_ASSIGN_OR_RETURN(audio::Resampler resampler,
                          audio::Resampler::Create((*opened)->sample_rate_hz(), rate_hz));
  sample_rate_hz_ = rate_hz;
  stream_ = *std::move(opened);
  resampler_.emplace(std::move(resampler));
  engine_ = config.engine;
  index_ = index;
  return absl::OkStatus();
}

void TtsChain::TryPreferred() {
  for (size_t index = 0; index < index_; ++index) {
    if (!OpenOne(index).ok()) continue;
    options_.serves(engine_, absl::OkStatus());
    return;
  }
}

std::optional<TtsChain::Border> TtsChain::FindBorder(std::string_view sentence,
                                                     const Progress& progress,
                                                     Reference& reference) const {
  if (options_.reference == nullptr) return std::nullopt;
  if (!std::exchange(reference.asked, true)) {
    const auto opened = options_.reference->Open(TtsConfig());
    if (!opened.ok()) return std::nullopt;
    reference.rate_hz = (*opened)->sample_rate_hz();
    const absl::Status said = (*opened)->Speak(
        sentence,
        [&reference](std::span<const int16_t> piece, const std::vector<WordTime>& words) {
          reference.samples.insert(reference.samples.end(), piece.begin(), piece.end());
          reference.words.insert(reference.words.end(), words.begin(), words.end());
          return true;
        },
        Cancellation());
    if (!said.ok()) reference.words.clear();
  }
  if (reference.words.empty()) return std::nullopt;
  const double reference_ms =
      1000.0 * static_cast<double>(reference.samples.size()) / reference.rate_hz;
  const auto pace = letter_ms_.find(index_);
  const double slower =
      pace == letter_ms_.end()
          ? 0
          : pace->second * static_cast<double>(sentence.size()) / reference_ms / prosody_.rate;
  const std::vector<int32_t> starts =
      AlignWords({reference.samples, reference.rate_hz}, reference.words, progress.heard(), slower);
  if (starts.empty()) return std::nullopt;
  return progress.FindBorder(sentence, starts, reference.words);
}

absl::Status TtsChain::Speak(std::string_view sentence, const TtsSink& sink,
                             const Cancellation& cancel, const Prosody& prosody) {
  if (prosody != prosody_) {
    prosody_ = prosody;
    stream_.reset();
  }
  if (stream_ == nullptr) PARLEY_RETURN_IF_ERROR(Open());
  TryPreferred();
  ChainErrors errors;
  int64_t spoken_ms = 0;
  for (int rescues = 0;; ++rescues) {
    Progress::Rules rules;
    rules.hold = options_.voices.size() > 1 && rescues < options_.max_rescues;
    rules.remote = !embedded(index_);
    if (options_.pace != nullptr) {
      rules.patience_us = absl::ToInt64Microseconds(
          options_.pace->Patience(KeyOf(index_), kFirstSlack, absl::Minutes(1)));
    }
    if (const auto pause = pause_us_.find(index_); pause != pause_us_.end())
      rules.pause_us = pause->second * 3 / 2 + absl::ToInt64Microseconds(kPauseSlack);
    Progress progress(sample_rate_hz_, spoken_ms, rules, *options_.clock, sink);
    Reference reference;
    bool wanted = true;
    resampler_->Reset();
    absl::Status status = stream_->Speak(
        sentence,
        [&](std::span<const int16_t> samples, const std::vector<WordTime>& words) {
          if (samples.empty() && progress.StallsAnew()) {
            const std::optional<Border> border = FindBorder(sentence, progress, reference);
            if (border.has_value()) progress.Hold(*border);
          }
          wanted = progress.Take(*resampler_, samples, words) || progress.late();
          return wanted && !progress.late();
        },
        cancel);
    if (!wanted || absl::IsCancelled(status) || cancel.cancelled()) return status;
    if (progress.late()) {
      status = WithReason(Unavailable("{} was silent for too long", engine_), "ENGINE_STALLED");
    }
    if (rules.remote) {
      breakers_.Report(KeyOf(index_), status);
      LearnFrom(progress, status.ok() ? sentence : std::string_view());
    }
    if (status.ok()) {
      progress.Finish();
      return status;
    }
    const size_t failed = index_;
    stream_.reset();
    if (!errors.Add(engine_, status) || rescues >= options_.max_rescues) return errors.Result();
    sentence.remove_prefix(Break(sentence, progress, reference));
    spoken_ms += progress.handed_out_ms();
    absl::Status opened;
    // Down the chain, then from its top again: what died may be there anew.
    for (size_t step = 1; step <= options_.voices.size(); ++step) {
      const size_t next = (failed + step) % options_.voices.size();
      opened = OpenOne(next);
      if (opened.ok()) break;
      errors.Add(options_.voices[next].engine, opened);
    }
    if (!opened.ok()) return errors.Result();
    options_.serves(engine_, status);
    if (sentence.empty()) return absl::OkStatus();  // it failed after its last word
  }
}

void TtsChain::LearnFrom(const Progress& progress, std::string_view said) {
  // Of a short sentence the pauses at its ends are most.
  if (said.size() >= kTellingLetters && prosody_ == Prosody()) {
    const double ms =
        static_cast<double>(progress.received_ms()) / static_cast<double>(said.size());
    const auto [known, first] = letter_ms_.try_emplace(index_, ms);
    if (!first) known->second += (ms - known->second) / 4;
  }
  if (!said.empty()) {
    const auto [known, first] = pause_us_.try_emplace(index_, progress.longest_pause_us());
    if (!first) known->second = std::max(progress.longest_pause_us(), known->second * 3 / 4);
  }
  if (options_.pace == nullptr) return;
  if (!progress.silent()) {
    options_.pace->Learn(KeyOf(index_), progress.first_took());
  } else if (progress.late()) {
    options_.pace->LearnLate(KeyOf(index_), progress.first_took());
  }
}

size_t TtsChain::Break(std::string_view sentence, Progress& progress, Reference& reference) const {
  if (!progress.blind() || progress.silent()) return progress.ResumeAt(sentence);
  std::optional<Border> border = progress.hold();
  if (!border.has_value()) border = FindBorder(sentence, progress, reference);
  if (border.has_value()) {
    progress.BreakAt(*border);
    return border->text;
  }
  progress.Finish();
  return progress.ResumeAt(sentence);
}

}  // namespace parley::speech
