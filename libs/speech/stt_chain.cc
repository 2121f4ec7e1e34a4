#include "speech/stt_chain.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace parley::speech {

SttChain::SttChain(const EngineTable<SttEngine>& engines, Breakers& breakers, Clock& clock,
                   Options options, Listener listener)
    : engines_(engines),
      breakers_(breakers),
      clock_(clock),
      options_(std::move(options)),
      listener_(std::move(listener)) {}

std::string SttChain::KeyOf(size_t index) const {
  const SttConfig& config = options_.engines[index];
  return config.model.empty() ? config.engine : config.engine + "/" + config.model;
}

// A recogniser in a process of its own dies of what it was given, not of an outage: one caller's
// audio must not close it for others.
bool SttChain::embedded(size_t index) const {
  const absl::StatusOr<SttEngine*> found = engines_.Find(options_.engines[index].engine);
  return found.ok() && (*found)->info().embedded;
}

absl::Status SttChain::Open() {
  for (size_t index = 0; index < options_.engines.size(); ++index) {
    absl::Status opened = OpenOne(index);
    if (opened.ok()) {
      listener_.serves(engine_, errors_.empty() ? opened : errors_.Result());
      return opened;
    }
    if (!errors_.Add(options_.engines[index].engine, opened)) break;
  }
  failed_ = true;
  return errors_.Result();
}

absl::Status SttChain::OpenOne(size_t index) {
  const SttConfig& config = options_.engines[index];
  PARLEY_ASSIGN_OR_RETURN(SttEngine * found, engines_.Find(config.engine));
  const bool guarded = !embedded(index);
  if (guarded && !breakers_.Allow(KeyOf(index)))
    return Unavailable("{} failed lately and is not asked for now", config.engine);
  PARLEY_ASSIGN_OR_RETURN(
      audio::Resampler resampler,
      audio::Resampler::Create(options_.input_rate_hz, found->info().sample_rate_hz));
  const uint64_t generation = ++last_generation_;
  auto opened = found->Open(config, [deliver = listener_.deliver, generation](SttEvent event) {
    deliver(generation, std::move(event));
  });
  // An open engine has proven nothing yet: its first final does.
  if (guarded && !opened.ok()) breakers_.Report(KeyOf(index), opened.status());
  PARLEY_RETURN_IF_ERROR(opened.status());
  generation_ = generation;
  stream_ = *std::move(opened);
  resampler_.emplace(std::move(resampler));
  engine_ = config.engine;
  index_ = index;
  engine_from_ = kept_from_;
  return absl::OkStatus();
}

absl::Status SttChain::Replace(const absl::Status& failure) {
  stream_.reset();
  absl::Status last = failure;
  size_t tried = index_;
  for (;;) {
    if (!embedded(tried)) breakers_.Report(KeyOf(tried), last);
    const bool next = errors_.Add(options_.engines[tried].engine, last);
    if (!next || ++opens_ >= options_.max_opens) break;
    // Down the chain, then from its top again: what died may be there anew.
    tried = (tried + 1) % options_.engines.size();
    last = OpenOne(tried);
    if (last.ok()) {
      listener_.serves(engine_, failure);
      last = Replay();
      if (last.ok()) return last;
      stream_.reset();
    }
  }
  failed_ = true;
  return errors_.Result();
}

absl::Status SttChain::Replay() {
  uint64_t given = kept_from_;
  const auto give_until = [&](uint64_t end) {
    const auto from = static_cast<size_t>(given - kept_from_);
    const auto count = static_cast<size_t>(std::max(end, given) - given);
    given += count;
    return Give(std::span<const int16_t>(kept_).subspan(from, count));
  };
  for (Asked& asked : asked_) {
    PARLEY_RETURN_IF_ERROR(give_until(asked.end));
    PARLEY_RETURN_IF_ERROR(stream_->EndUtterance(asked.utterance));
    asked.since_us = clock_.MonotonicMicros();
  }
  return give_until(kept_from_ + kept_.size());
}

absl::Status SttChain::Give(std::span<const int16_t> samples) {
  if (samples.empty()) return absl::OkStatus();
  resampled_.clear();
  resampler_->Append(samples, resampled_);
  return stream_->Write(resampled_);
}

absl::Status SttChain::Write(std::span<const int16_t> samples) {
  if (failed_) return errors_.Result();
  if (kept_.empty() && asked_.empty()) TryPreferred();
  kept_.insert(kept_.end(), samples.begin(), samples.end());
  position_ += samples.size();
  const auto most =
      static_cast<size_t>(absl::ToDoubleSeconds(options_.keep) * options_.input_rate_hz);
  // In steps, as a shift of a minute's audio for each frame would cost.
  if (kept_.size() > most + most / 8) Forget(kept_from_ + kept_.size() - most);
  const absl::Status given = Give(samples);
  return given.ok() ? given : Replace(given);
}

absl::Status SttChain::EndUtterance(uint64_t utterance) {
  if (failed_) return errors_.Result();
  asked_.push_back({utterance, kept_from_ + kept_.size(), clock_.MonotonicMicros()});
  const absl::Status asked = stream_->EndUtterance(utterance);
  return asked.ok() ? asked : Replace(asked);
}

absl::Status SttChain::Reset() {
  if (failed_) return errors_.Result();
  const uint64_t from = asked_.empty() ? kept_from_ : std::max(asked_.back().end, kept_from_);
  kept_.resize(static_cast<size_t>(from - kept_from_));
  if (kept_.empty()) kept_from_ = position_;
  const absl::Status reset = stream_->Reset();
  return reset.ok() ? reset : Replace(reset);
}

void SttChain::OnEvent(uint64_t generation, SttEvent event) {
  if (generation != generation_ || stream_ == nullptr || failed_) return;
  if (const auto* failed = std::get_if<SttFailed>(&event)) {
    const absl::Status replaced = Replace(failed->status);
    if (!replaced.ok()) listener_.event(SttFailed{replaced});
    return;
  }
  const bool final = std::holds_alternative<SttFinal>(event);
  SttTranscript& transcript =
      final ? std::get<SttFinal>(event).transcript : std::get<SttPartial>(event).transcript;
  const auto shift_ms =
      static_cast<int32_t>(engine_from_ * 1000 / static_cast<uint64_t>(options_.input_rate_hz));
  for (WordTime& word : transcript.words) {
    word.start_ms += shift_ms;
    word.end_ms += shift_ms;
  }
  if (final) {
    if (asked_.empty()) return;  // an answer to no question
    Forget(asked_.front().end);
    asked_.pop_front();
    if (!embedded(index_)) breakers_.Report(KeyOf(index_), absl::OkStatus());
    errors_.Clear();
    opens_ = 0;
  }
  listener_.event(std::move(event));
}

void SttChain::Forget(uint64_t until) {
  if (until <= kept_from_) return;
  const auto count = std::min(static_cast<size_t>(until - kept_from_), kept_.size());
  kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(count));
  kept_from_ = kept_.empty() ? position_ : kept_from_ + count;
}

void SttChain::CheckStalled() {
  if (failed_ || stream_ == nullptr || asked_.empty()) return;
  const int64_t waited_us = clock_.MonotonicMicros() - asked_.front().since_us;
  if (waited_us < absl::ToInt64Microseconds(options_.final_timeout)) return;
  const absl::Status replaced =
      Replace(WithReason(Unavailable("{} gave no final within {}", engine_,
                                     absl::FormatDuration(options_.final_timeout)),
                         "ENGINE_STALLED"));
  if (!replaced.ok()) listener_.event(SttFailed{replaced});
}

// Between two utterances nothing is lost by a change, and a failure costs no more than any other.
void SttChain::TryPreferred() {
  for (size_t index = 0; index < index_; ++index) {
    if (!OpenOne(index).ok()) continue;
    listener_.serves(engine_, absl::OkStatus());
    return;
  }
}

}  // namespace parley::speech
