#include "caller/call_log.h"

#include <algorithm>

#include "audio/pcm.h"

namespace parley::caller {
namespace {

namespace pb = ::parley::room::v1;

constexpr std::string_view kTranscription = "lk.transcription";
constexpr auto kSegmentId = "lk.segment_id";
constexpr auto kTranscriptionFinal = "lk.transcription_final";
constexpr int64_t kFrameUs = int64_t{audio::kFrameMs} * 1'000;

template <typename Map>
std::string Value(const Map& map, const char* key) {
  const auto found = map.find(key);
  return found == map.end() ? std::string() : std::string(found->second);
}

}  // namespace

std::string_view Name(CallEvent::Type type) {
  switch (type) {
    case CallEvent::Type::kParticipantJoined:
      return "participant_joined";
    case CallEvent::Type::kParticipantLeft:
      return "participant_left";
    case CallEvent::Type::kAttribute:
      return "attribute";
    case CallEvent::Type::kTrackPublished:
      return "track_published";
    case CallEvent::Type::kAgentAudible:
      return "agent_audible";
    case CallEvent::Type::kMicrophoneHeard:
      return "microphone_heard";
    case CallEvent::Type::kTranscript:
      return "transcript";
    case CallEvent::Type::kText:
      return "text";
    case CallEvent::Type::kData:
      return "data";
    case CallEvent::Type::kAgentSpeechStarted:
      return "agent_speech_started";
    case CallEvent::Type::kAgentSpeechEnded:
      return "agent_speech_ended";
    case CallEvent::Type::kDisconnected:
      return "disconnected";
  }
  return "unknown";
}

void CallLog::Add(CallEvent event) {
  event.agent = IsAgent(event.identity);
  if (events_.size() < kMaxEvents) events_.push_back(std::move(event));
}

bool CallLog::IsAgent(const std::string& identity) const {
  const auto found = people_.find(identity);
  return found != people_.end() && found->second.agent;
}

std::string CallLog::AgentAttribute(const std::string& key) const {
  for (const auto& [identity, person] : people_) {
    if (!person.agent) continue;
    if (std::string value = Value(person.attributes, key.c_str()); !value.empty()) return value;
  }
  return {};
}

std::string CallLog::AudibleAgent() const {
  for (const auto& [identity, person] : people_) {
    if (person.agent && person.audible) return identity;
  }
  return {};
}

void CallLog::OnJoined(const pb::Joined& joined) {
  self_ = joined.participant().identity();
  for (const pb::Participant& other : joined.others()) Update(other, 0);
}

// Tells what is new about a participant.
void CallLog::Update(const pb::Participant& participant, int64_t at_us) {
  const std::string& identity = participant.identity();
  if (identity == self_) return;
  const bool is_new = !people_.contains(identity);
  Person& person = people_[identity];
  person.agent = participant.kind() == pb::PARTICIPANT_KIND_AGENT;
  if (is_new) {
    Add({.type = CallEvent::Type::kParticipantJoined, .at_us = at_us, .identity = identity});
  }
  std::map<std::string, std::string> now(participant.attributes().begin(),
                                         participant.attributes().end());
  for (const auto& [key, value] : now) {
    if (Value(person.attributes, key.c_str()) == value) continue;
    Add({.type = CallEvent::Type::kAttribute,
         .at_us = at_us,
         .identity = identity,
         .key = key,
         .text = value});
  }
  for (const auto& [key, value] : person.attributes) {
    if (now.contains(key)) continue;
    Add({.type = CallEvent::Type::kAttribute, .at_us = at_us, .identity = identity, .key = key});
  }
  person.attributes = std::move(now);
}

void CallLog::OnEvent(const pb::RoomEvent& event, int64_t at_us) {
  switch (event.event_case()) {
    case pb::RoomEvent::kParticipantJoined:
      return Update(event.participant_joined().participant(), at_us);
    case pb::RoomEvent::kParticipantUpdated:
      return Update(event.participant_updated().participant(), at_us);
    case pb::RoomEvent::kParticipantLeft: {
      const std::string& identity = event.participant_left().identity();
      Add({.type = CallEvent::Type::kParticipantLeft, .at_us = at_us, .identity = identity});
      people_.erase(identity);
      return;
    }
    case pb::RoomEvent::kTrackPublished:
      return Add({.type = CallEvent::Type::kTrackPublished,
                  .at_us = at_us,
                  .identity = event.track_published().participant_identity(),
                  .key = event.track_published().track().sid()});
    case pb::RoomEvent::kSubscriptionStarted: {
      const std::string& identity = event.subscription_started().participant_identity();
      if (!IsAgent(identity)) return;
      people_[identity].audible = true;
      return Add({.type = CallEvent::Type::kAgentAudible, .at_us = at_us, .identity = identity});
    }
    case pb::RoomEvent::kTrackSubscribed:
      microphone_heard_ = true;
      return Add({.type = CallEvent::Type::kMicrophoneHeard,
                  .at_us = at_us,
                  .identity = event.track_subscribed().subscriber_identity()});
    case pb::RoomEvent::kData:
      return Add({.type = CallEvent::Type::kData,
                  .at_us = at_us,
                  .identity = event.data().from_identity(),
                  .key = event.data().topic(),
                  .text = event.data().payload()});
    case pb::RoomEvent::kText:
      return OnText(event.text(), at_us);
    case pb::RoomEvent::kDisconnected:
      return OnDisconnected(event.disconnected().message(), at_us);
    default:
      return;
  }
}

void CallLog::OnText(const pb::TextPacket& text, int64_t at_us) {
  if (text.topic() == kTranscription) return OnTranscript(text, at_us);
  Add({.type = CallEvent::Type::kText,
       .at_us = at_us,
       .identity = text.from_identity(),
       .key = text.topic(),
       .text = text.text(),
       .final = text.final()});
}

// Pieces of one stream are put together; a new stream of the same segment replaces what was there.
void CallLog::OnTranscript(const pb::TextPacket& text, int64_t at_us) {
  std::string segment = Value(text.attributes(), kSegmentId);
  if (segment.empty()) segment = text.stream_id();
  auto entry = std::ranges::find(transcripts_, segment, &Transcript::segment_id);
  if (entry == transcripts_.end()) {
    transcripts_.push_back({.segment_id = segment,
                            .identity = text.from_identity(),
                            .agent = IsAgent(text.from_identity()),
                            .text = {},
                            .first_at_us = at_us});
    entry = transcripts_.end() - 1;
  }
  std::string& stream = streams_[segment];
  if (stream != text.stream_id()) {
    stream = text.stream_id();
    entry->text.clear();
  }
  entry->text += text.text();
  entry->last_at_us = at_us;
  entry->final = entry->final || Value(text.attributes(), kTranscriptionFinal) == "true";
  Add({.type = CallEvent::Type::kTranscript,
       .at_us = at_us,
       .identity = text.from_identity(),
       .key = segment,
       .text = entry->text,
       .final = entry->final});
}

void CallLog::OnDisconnected(std::string_view why, int64_t at_us) {
  if (over_) return;
  over_ = true;
  Add({.type = CallEvent::Type::kDisconnected, .at_us = at_us, .text = std::string(why)});
}

void CallLog::OnAgentFrame(const std::string& identity, bool audible, int64_t at_us) {
  if (!audible) return;
  if (!speaking_) {
    speaking_ = true;
    speaker_ = identity;
    spoken_.push_back({at_us, at_us + kFrameUs});
    Add({.type = CallEvent::Type::kAgentSpeechStarted, .at_us = at_us, .identity = identity});
    return;
  }
  // A pause inside one utterance: a stretch of its own, so that "first audio after" is exact.
  if (at_us > spoken_.back().to_us + 2 * kFrameUs) {
    spoken_.push_back({at_us, at_us + kFrameUs});
  } else {
    spoken_.back().to_us = std::max(spoken_.back().to_us, at_us + kFrameUs);
  }
}

void CallLog::OnTime(int64_t now_us, int64_t gap_us) {
  if (!speaking_ || now_us - spoken_.back().to_us < gap_us) return;
  speaking_ = false;
  Add({.type = CallEvent::Type::kAgentSpeechEnded,
       .at_us = spoken_.back().to_us,
       .identity = speaker_});
}

}  // namespace parley::caller
