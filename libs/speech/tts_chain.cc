#include "speech/tts_chain.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/status.h"

namespace parley::speech {
namespace {

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

// One voice's share of a sentence.
class TtsChain::Progress {
 public:
  // `hold`: words are handed out whole or not at all.
  Progress(int rate_hz, int64_t start_ms, bool hold, const TtsSink& sink)
      : rate_hz_(rate_hz), start_ms_(start_ms), hold_(hold), sink_(sink) {}

  bool Take(audio::Resampler& resampler, std::span<const int16_t> samples,
            const std::vector<WordTime>& words) {
    resampler.Append(samples, held_);
    words_.insert(words_.end(), words.begin(), words.end());
    return HandOut(hold_ ? Border() : received());
  }
  bool Finish() { return HandOut(received()); }

  int64_t handed_out_ms() const { return MsOf(handed_out_); }
  // Where in `text` the next voice begins.
  size_t ResumeAt(std::string_view text) const {
    if (handed_out_ == 0) return 0;
    if (said_.empty() && words_.empty()) return Estimate(text, handed_out_ms());
    size_t at = 0;
    for (const WordTime& word : said_) at = After(text, at, word.word);
    return at;
  }

 private:
  int64_t MsOf(size_t samples) const { return static_cast<int64_t>(samples) * 1000 / rate_hz_; }
  size_t received() const { return handed_out_ + held_.size(); }
  // Up to here all words are whole.
  size_t Border() const {
    const int64_t ms = MsOf(received());
    for (const WordTime& word : words_) {
      if (word.end_ms <= ms) continue;
      return std::clamp(
          static_cast<size_t>(std::max(word.start_ms, 0)) * static_cast<size_t>(rate_hz_) / 1000,
          handed_out_, received());
    }
    return received();
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
  const bool hold_;
  const TtsSink& sink_;
  std::vector<int16_t> held_;
  std::vector<WordTime> words_;  // of what is held
  std::vector<WordTime> said_;
  size_t handed_out_ = 0;  // samples
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
  absl::StatusOr<std::unique_ptr<TtsStream>> opened = found->Open(config);
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

absl::Status TtsChain::Speak(std::string_view sentence, const TtsSink& sink,
                             const Cancellation& cancel) {
  if (stream_ == nullptr) PARLEY_RETURN_IF_ERROR(Open());
  TryPreferred();
  ChainErrors errors;
  int64_t spoken_ms = 0;
  for (int rescues = 0;; ++rescues) {
    const bool others = options_.voices.size() > 1 && rescues < options_.max_rescues;
    Progress progress(sample_rate_hz_, spoken_ms, others, sink);
    bool wanted = true;
    resampler_->Reset();
    absl::Status status = stream_->Speak(
        sentence,
        [&](std::span<const int16_t> samples, const std::vector<WordTime>& words) {
          wanted = progress.Take(*resampler_, samples, words);
          return wanted;
        },
        cancel);
    if (!wanted || absl::IsCancelled(status) || cancel.cancelled()) return status;
    if (!embedded(index_)) breakers_.Report(KeyOf(index_), status);
    if (status.ok()) {
      progress.Finish();
      return status;
    }
    const size_t failed = index_;
    stream_.reset();
    if (!errors.Add(engine_, status) || rescues >= options_.max_rescues) return errors.Result();
    sentence.remove_prefix(progress.ResumeAt(sentence));
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

}  // namespace parley::speech
