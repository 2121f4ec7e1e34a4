// With a model that hears and speaks: what the other files do with a recogniser, a model and a
// voice.
#include <algorithm>
#include <utility>

#include "session/session.h"
#include "session/text.h"

namespace parley::session {
namespace {

constexpr size_t kMaxHeardTurns = 16;
constexpr size_t kMaxTranscripts = 64;
// Of one speech. Models make it faster than it is played: what is over waits in memory.
constexpr int64_t kMaxAudioUs = int64_t{300} * 1'000'000;
constexpr char kWordForWord[] = "Say exactly these words, and nothing else: ";

}  // namespace

// A stream that opens is told everything.
void Session::BriefModel() {
  if (!options_.realtime) return;
  for (Command& one : out_) {
    auto* open = std::get_if<command::SttOpen>(&one);
    if (open == nullptr || !open->items.empty()) continue;
    open->items = history_.Prompt(character().instructions, "", character().context);
    open->agent = AgentLabel();
    untold_.clear();
  }
}

// ---- hearing ----

void Session::On(const event::ModelSpeech& speech) {
  const bool deaf = active_ != nullptr && active_->playing && !active_->interruptible;
  if (speech.started && (deaf || linked_.empty() || closing_)) return;
  hearing_.OnSpeech(speech.stream, speech.started, speech.utterance, now_us_);
}

void Session::On(const event::ModelTranscript& transcript) {
  uint64_t utterance = transcript.utterance;
  if (!hearing_.OnTranscript(transcript.stream, utterance, transcript.text, transcript.final) ||
      !transcript.final) {
    return;
  }
  errors_[static_cast<int>(Engine::kStt)] = 0;
  said_[utterance] = transcript.text;
  if (said_.size() > kMaxTranscripts) said_.erase(said_.begin());
  const auto turn = std::find_if(heard_.begin(), heard_.end(), [&](const HeardTurn& one) {
    return one.first <= utterance && utterance <= one.last;
  });
  if (turn == heard_.end()) return;
  history_.SetText(turn->item, WordsOf(*turn), false);
  const ChatItem* item = history_.Find(turn->item);
  if (item != nullptr && !item->text.empty()) out_.emplace_back(command::ItemAdded{*item});
}

std::string Session::WordsOf(const HeardTurn& turn) const {
  std::string words;
  for (auto it = said_.lower_bound(turn.first); it != said_.end() && it->first <= turn.last; ++it)
    words = JoinText(words, it->second);
  return words;
}

// A word or a cough over the agent's speech, too short to stop it.
bool Session::IsNoTurn(const Turn& turn) const {
  return active_ != nullptr && active_->heard() && !paused_ &&
         hearing_.detection() != TurnDetection::kManual &&
         turn.speech_us < absl::ToInt64Microseconds(options_.min_interruption);
}

// Its place in the history; its words come later, or are there already.
void Session::CommitHeard(const Turn& turn, bool goes_on) {
  HeardTurn heard{.first = turn.first_utterance, .last = turn.last_utterance};
  const ChatItem* last = heard_.empty() ? nullptr : history_.Find(heard_.back().item);
  if (goes_on && last != nullptr && last == history_.LastUserMessage()) {
    heard_.back().last = heard.last;
    heard = heard_.back();
  } else {
    heard.item = history_.Add({.role = "user", .text = ""});
    heard_.push_back(heard);
    if (heard_.size() > kMaxHeardTurns) heard_.pop_front();
  }
  std::string words = WordsOf(heard);
  if (words.empty()) return;
  history_.SetText(heard.item, std::move(words), false);
  if (const ChatItem* item = history_.Find(heard.item))
    out_.emplace_back(command::ItemAdded{*item});
}

// ---- speaking ----

void Session::RequestSpoken(Speech& speech, std::string instructions, bool allow_tools) {
  BriefModel();  // a stream that opens now knows what is told it here
  const bool first = speech.spoken_rounds.empty();
  speech.asked = true;
  speech.llm_stream = ++streams_;
  speech.llm_deadline_us = now_us_ + absl::ToInt64Microseconds(options_.llm_timeout);
  speech.llm_asked_us = now_us_;
  speech.spoken_rounds.push_back({.stream = speech.llm_stream});
  const std::deque<ChatItem> items = std::exchange(untold_, {});
  out_.emplace_back(command::Respond{
      .stream = speech.llm_stream,
      .speech = speech.id,
      .turn_id = speech.turn_id,
      .items = {items.begin(), items.end()},
      .instructions = std::move(instructions),
      .allow_tools = allow_tools && !(character().tools.empty() && character().handoffs.empty()),
      .first = first});
}

void Session::SayByModel(Speech& speech) {
  RequestSpoken(speech, kWordForWord + speech.text, false);
  speech.text.clear();
}

// The current answer has something to say.
void Session::AddSpoken(Speech& speech) {
  Speech::Round& round = speech.spoken_rounds.back();
  if (round.segment != 0) return;
  DropAside(speech);  // it comes too late
  round.segment = ++segments_;
  round.start_us = speech.spoken.audio_us();
  speech.spoken.Add(round.segment, speech.part, "");
}

// The aside that was added last, by the voice: the model is what is waited for.
void Session::SpeakAside(Speech& speech) {
  SpokenText::Segment& segment = speech.spoken.segments().back();
  segment.sent = true;
  speech.tts_stream = ++streams_;
  speech.tts_deadline_us = now_us_ + absl::ToInt64Microseconds(options_.tts_timeout);
  usage_.tts_characters += static_cast<int64_t>(segment.text.size());
  out_.emplace_back(command::TtsOpen{speech.tts_stream, speech.id, speech.turn_id, AgentLabel()});
  out_.emplace_back(command::TtsText{speech.tts_stream, segment.number, segment.text});
  out_.emplace_back(command::TtsFinish{speech.tts_stream});
}

// Unless it is there: then it is heard.
void Session::DropAside(Speech& speech) {
  if (speech.tts_stream == 0 || speech.clip != 0) return;
  out_.emplace_back(command::TtsCancel{std::exchange(speech.tts_stream, 0)});
  for (const SpokenText::Segment& segment : speech.spoken.segments()) {
    if (!segment.sent || segment.done) continue;
    if (segment.duration_us > 0) return static_cast<void>(speech.spoken.OnDone(segment.number));
    return speech.spoken.Drop(segment.number);
  }
}

void Session::On(const event::LlmAudio& audio) {
  Speech* speech = OfLlm(audio.stream);
  if (!options_.realtime || speech == nullptr || speech->spoken_rounds.empty()) return;
  ModelMoved(*speech);
  if (speech->times.first_text_us == 0) speech->times.first_text_us = now_us_;
  if (speech->times.first_audio_us == 0) speech->times.first_audio_us = now_us_;
  AddSpoken(*speech);
  speech->spoken_rounds.back().audio_us += audio.duration_us;
  speech->spoken.OnAudio(speech->spoken_rounds.back().segment, audio.duration_us, {});
  if (!speech->owes_audio_before(audio.duration_us)) speech->moved_us = now_us_;
  if (speech->spoken.audio_us() < kMaxAudioUs) return;
  out_.emplace_back(
      command::Log{command::Log::Level::kWarn, "an answer is over five minutes and was cut", ""});
  out_.emplace_back(command::LlmCancel{speech->llm_stream});
  EndRound(*speech);
}

// No more of the current answer comes.
void Session::RoundOver(Speech& speech) {
  if (!speech.spoken_rounds.empty()) speech.spoken.OnDone(speech.spoken_rounds.back().segment);
}

// The model is to know how much of it was heard.
void Session::CutSpoken(Speech& speech) {
  for (const Speech::Round& round : speech.spoken_rounds) {
    const int64_t heard_us =
        std::clamp<int64_t>(speech.played_us - round.start_us, 0, round.audio_us);
    if (heard_us < round.audio_us) {
      out_.emplace_back(command::Truncate{.stream = round.stream, .heard_us = heard_us});
    }
  }
}

// What it was making is lost with the stream.
void Session::ModelLost(const std::string& error) {
  if (active_ == nullptr || active_->llm_stream == 0) return;
  On(event::LlmFailed{active_->llm_stream, error});
}

// Silence would leave the caller to wonder, in mid-word all the more. Whoever serves next says it.
void Session::ApologiseLater(Speech& speech) {
  RoundOver(speech);
  speech.text_complete = true;
  if (speech.apology || options_.apology.empty()) return;
  Speech apology{.text = options_.apology};
  apology.apology = true;
  Enqueue(std::move(apology));
}

}  // namespace parley::session
