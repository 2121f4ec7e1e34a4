#include "speech_redis/voice_index.h"

#include "base/status.h"
#include "speech_redis/keys.h"
#include "speech_redis/scripts.h"

namespace parley::speech_redis {
namespace {

std::string Ms(absl::Duration duration) {
  return std::to_string(absl::ToInt64Milliseconds(duration));
}

}  // namespace

void VoiceIndex::SetAddress(std::string address) {
  MutexLock lock(&mutex_);
  address_ = std::move(address);
}

absl::StatusOr<VoiceIndex::Answer> VoiceIndex::Claim(std::string_view project,
                                                     std::string_view phrase,
                                                     absl::Duration within) {
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      pool_.Call(scripts::claim, {VoiceKey(project)}, {std::string(phrase), id_, Ms(within)}));
  const std::vector<redis::Reply>& parts = reply.elements;
  if (parts.size() < 2) return Internal("claim answered in an unknown form");
  if (parts[0].text == "make") return Answer(Make{parts[1].text});
  if (parts[0].text == "wait") return Answer(Wait{absl::Milliseconds(parts[1].integer)});
  Ready ready{parts[1].text, {}};
  for (size_t i = 2; i + 1 < parts.size(); i += 2)
    ready.keepers.push_back({parts[i].text, parts[i + 1].text});
  return Answer(std::move(ready));
}

absl::StatusOr<bool> VoiceIndex::Publish(std::string_view project, std::string_view phrase,
                                         std::string_view id, absl::Duration lifetime) {
  std::string address;
  {
    MutexLock lock(&mutex_);
    address = address_;
  }
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      pool_.Call(scripts::publish, {VoiceKey(project)},
                 {std::string(phrase), id_, std::move(address), std::string(id), Ms(lifetime)}));
  return reply.integer == 1;
}

absl::Status VoiceIndex::Forget(std::string_view project, std::string_view phrase,
                                std::string_view id, std::string_view keeper) {
  return pool_
      .Call(scripts::forget, {VoiceKey(project)},
            {std::string(phrase), std::string(keeper.empty() ? id_ : keeper), std::string(id)})
      .status();
}

absl::Status VoiceIndex::Flush(std::string_view project) {
  return pool_.Call(scripts::flush, {VoiceKey(project)}, {}).status();
}

}  // namespace parley::speech_redis
