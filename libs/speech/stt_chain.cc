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
      listener_.serves(ear_.engine, errors_.empty() ? opened : errors_.Result());
      return opened;
    }
    if (!errors_.Add(options_.engines[index].engine, opened)) break;
  }
  failed_ = true;
  return errors_.Result();
}

absl::StatusOr<SttChain::Ear> SttChain::OpenEar(size_t index) {
  const SttConfig& config = options_.engines[index];
  PARLEY_ASSIGN_OR_RETURN(SttEngine * found, engines_.Find(config.engine));
  const bool guarded = !embedded(index);
  if (guarded && !breakers_.Allow(KeyOf(index)))
    return Unavailable("{} failed lately and is not asked for now", config.engine);
  PARLEY_ASSIGN_OR_RETURN(
      audio::Resampler resampler,
      audio::Resampler::Create(options_.input_rate_hz, found->info().sample_rate_hz));
  Ear ear;
  ear.generation = ++last_generation_;
  auto opened = found->Open(config, [deliver = listener_.deliver, generation = ear.generation](
                                        SttEvent event) { deliver(generation, std::move(event)); });
  // An open engine has proven nothing yet: its first final does.
  if (guarded && !opened.ok()) breakers_.Report(KeyOf(index), opened.status());
  PARLEY_RETURN_IF_ERROR(opened.status());
  ear.engine = config.engine;
  ear.index = index;
  ear.stream = *std::move(opened);
  ear.resampler.emplace(std::move(resampler));
  ear.from = kept_from_;
  return ear;
}

absl::Status SttChain::OpenOne(size_t index) {
  PARLEY_ASSIGN_OR_RETURN(ear_, OpenEar(index));
  return absl::OkStatus();
}

absl::Status SttChain::Replace(const absl::Status& failure) {
  if (rival_.stream != nullptr) {
    Promote(failure);
    for (Asked& asked : asked_) asked.since_us = clock_.MonotonicMicros();
    return absl::OkStatus();
  }
  ear_.stream.reset();
  absl::Status last = failure;
  size_t tried = ear_.index;
  for (;;) {
    if (!embedded(tried)) breakers_.Report(KeyOf(tried), last);
    const bool next = errors_.Add(options_.engines[tried].engine, last);
    if (!next || ++opens_ >= options_.max_opens) break;
    // Down the chain, then from its top again: what died may be there anew.
    tried = (tried + 1) % options_.engines.size();
    last = OpenOne(tried);
    if (last.ok()) {
      listener_.serves(ear_.engine, failure);
      last = Replay(ear_);
      if (last.ok()) return last;
      ear_.stream.reset();
    }
  }
  failed_ = true;
  return errors_.Result();
}

absl::Status SttChain::Replay(Ear& ear) {
  uint64_t given = kept_from_;
  const auto give_until = [&](uint64_t end) {
    const auto from = static_cast<size_t>(given - kept_from_);
    const auto count = static_cast<size_t>(std::max(end, given) - given);
    given += count;
    return Give(ear, std::span<const int16_t>(kept_).subspan(from, count));
  };
  for (Asked& asked : asked_) {
    PARLEY_RETURN_IF_ERROR(give_until(asked.end));
    PARLEY_RETURN_IF_ERROR(ear.stream->EndUtterance(asked.utterance));
    // Whoever serves is asked anew; a rival is measured by the one it runs against.
    if (&ear == &ear_) asked.since_us = clock_.MonotonicMicros();
  }
  return give_until(kept_from_ + kept_.size());
}

absl::Status SttChain::Give(Ear& ear, std::span<const int16_t> samples) {
  if (samples.empty()) return absl::OkStatus();
  resampled_.clear();
  ear.resampler->Append(samples, resampled_);
  return ear.stream->Write(resampled_);
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
  if (rival_.stream != nullptr && !Give(rival_, samples).ok()) rival_.stream.reset();
  const absl::Status given = Give(ear_, samples);
  return given.ok() ? given : Replace(given);
}

absl::Status SttChain::EndUtterance(uint64_t utterance) {
  if (failed_) return errors_.Result();
  asked_.push_back({utterance, kept_from_ + kept_.size(), clock_.MonotonicMicros()});
  if (rival_.stream != nullptr && !rival_.stream->EndUtterance(utterance).ok())
    rival_.stream.reset();
  const absl::Status asked = ear_.stream->EndUtterance(utterance);
  return asked.ok() ? asked : Replace(asked);
}

absl::Status SttChain::Reset() {
  if (failed_) return errors_.Result();
  const uint64_t from = asked_.empty() ? kept_from_ : std::max(asked_.back().end, kept_from_);
  kept_.resize(static_cast<size_t>(from - kept_from_));
  if (kept_.empty()) kept_from_ = position_;
  if (rival_.stream != nullptr && !rival_.stream->Reset().ok()) rival_.stream.reset();
  const absl::Status reset = ear_.stream->Reset();
  return reset.ok() ? reset : Replace(reset);
}

void SttChain::OnEvent(uint64_t generation, SttEvent event) {
  if (failed_ || ear_.stream == nullptr) return;
  const auto* failed = std::get_if<SttFailed>(&event);
  const bool final = std::holds_alternative<SttFinal>(event);
  if (rival_.stream != nullptr && generation == rival_.generation) {
    if (failed != nullptr) rival_.stream.reset();
    // What a rival thinks so far is of no interest: only its final beats.
    if (!final || asked_.empty()) return;
    Promote(WithReason(Unavailable("{} was slower than {}", ear_.engine, rival_.engine),
                       "ENGINE_STALLED"));
  }
  if (generation != ear_.generation) return;
  if (failed != nullptr) {
    const absl::Status replaced = Replace(failed->status);
    if (!replaced.ok()) listener_.event(SttFailed{replaced});
    return;
  }
  const auto shift_ms =
      static_cast<int32_t>(ear_.from * 1000 / static_cast<uint64_t>(options_.input_rate_hz));
  if (auto* activity = std::get_if<SttActivity>(&event)) {
    activity->at_ms += shift_ms;
    return listener_.event(std::move(event));
  }
  SttTranscript& transcript =
      final ? std::get<SttFinal>(event).transcript : std::get<SttPartial>(event).transcript;
  for (WordTime& word : transcript.words) {
    word.start_ms += shift_ms;
    word.end_ms += shift_ms;
  }
  if (final) {
    if (asked_.empty()) return;  // an answer to no question
    const absl::Duration took =
        absl::Microseconds(clock_.MonotonicMicros() - asked_.front().since_us);
    Forget(asked_.front().end);
    asked_.pop_front();
    rival_.stream.reset();
    if (!embedded(ear_.index)) {
      breakers_.Report(KeyOf(ear_.index), absl::OkStatus());
      if (options_.pace != nullptr) options_.pace->Learn(KeyOf(ear_.index), took);
    }
    errors_.Clear();
    opens_ = 0;
    hedged_ = false;
  }
  listener_.event(std::move(event));
}

void SttChain::Forget(uint64_t until) {
  if (until <= kept_from_) return;
  const auto count = std::min(static_cast<size_t>(until - kept_from_), kept_.size());
  kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(count));
  kept_from_ = kept_.empty() ? position_ : kept_from_ + count;
}

absl::Duration SttChain::Patience() const {
  return options_.pace->Patience(KeyOf(ear_.index), kHedgeSlack, absl::InfiniteDuration());
}

absl::Duration SttChain::CheckAfter() const {
  if (failed_ || asked_.empty() || hedged_ || options_.pace == nullptr ||
      options_.engines.size() < 2 || embedded(ear_.index)) {
    return absl::InfiniteDuration();
  }
  const absl::Duration waited =
      absl::Microseconds(clock_.MonotonicMicros() - asked_.front().since_us);
  return std::max(Patience() - waited, absl::ZeroDuration());
}

void SttChain::CheckStalled() {
  if (failed_ || ear_.stream == nullptr || asked_.empty()) return;
  if (CheckAfter() == absl::ZeroDuration()) Hedge();
  const int64_t waited_us = clock_.MonotonicMicros() - asked_.front().since_us;
  if (waited_us < absl::ToInt64Microseconds(options_.final_timeout)) return;
  const absl::Status replaced =
      Replace(WithReason(Unavailable("{} gave no final within {}", ear_.engine,
                                     absl::FormatDuration(options_.final_timeout)),
                         "ENGINE_STALLED"));
  if (!replaced.ok()) listener_.event(SttFailed{replaced});
}

void SttChain::Hedge() {
  hedged_ = true;
  if (++opens_ >= options_.max_opens) return;
  for (size_t step = 1; step < options_.engines.size(); ++step) {
    auto opened = OpenEar((ear_.index + step) % options_.engines.size());
    if (!opened.ok()) continue;
    rival_ = *std::move(opened);
    if (Replay(rival_).ok()) return;
    rival_.stream.reset();
  }
}

void SttChain::Promote(const absl::Status& failure) {
  if (!embedded(ear_.index)) {
    breakers_.Report(KeyOf(ear_.index), failure);
    if (options_.pace != nullptr && !asked_.empty()) {
      options_.pace->LearnLate(KeyOf(ear_.index), absl::Microseconds(clock_.MonotonicMicros() -
                                                                     asked_.front().since_us));
    }
  }
  ear_ = std::exchange(rival_, Ear());
  listener_.serves(ear_.engine, failure);
}

// Between two utterances nothing is lost by a change, and a failure costs no more than any other.
void SttChain::TryPreferred() {
  for (size_t index = 0; index < ear_.index; ++index) {
    if (!OpenOne(index).ok()) continue;
    listener_.serves(ear_.engine, absl::OkStatus());
    return;
  }
}

}  // namespace parley::speech
