#include "tts_gateway/speech_cache.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "audio/opus.h"
#include "audio/pcm.h"
#include "audio/resample.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"

namespace parley {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFolderPrefix = "speech-";
constexpr const char* kLock = "lock";
constexpr absl::Duration kPoll = absl::Milliseconds(10);
constexpr absl::Duration kLocalPoll = absl::Milliseconds(50);
constexpr int64_t kLeaveAloneUs = 5'000'000;  // a Redis that did not answer
constexpr absl::Duration kSweepEvery = absl::Minutes(1);

std::string Hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

std::vector<std::string> ToOpus(const speech::Phrase& phrase) {
  std::vector<std::string> packets;
  auto samples = audio::Resample(phrase.samples, phrase.sample_rate_hz, audio::kRoomRateHz);
  auto encoder = audio::OpusEncoder::Create();
  if (!samples.ok() || !encoder.ok()) return packets;
  const size_t frames = (samples->size() + audio::kRoomFrameSamples - 1) / audio::kRoomFrameSamples;
  samples->resize(frames * audio::kRoomFrameSamples);
  std::array<uint8_t, audio::OpusEncoder::kMaxPacketBytes> packet;
  for (size_t i = 0; i < frames; ++i) {
    const auto bytes = encoder->Encode(std::span<const int16_t>(*samples).subspan(
                                           i * audio::kRoomFrameSamples, audio::kRoomFrameSamples),
                                       packet);
    if (!bytes.ok()) return {};
    packets.emplace_back(reinterpret_cast<const char*>(packet.data()), *bytes);
  }
  return packets;
}

// Folders of processes that are gone: nobody holds their lock.
void RemoveOrphans(const fs::path& directory) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
    if (!entry.path().filename().string().starts_with(kFolderPrefix)) continue;
    const int lock = open((entry.path() / kLock).c_str(), O_RDWR | O_CLOEXEC);
    if (lock < 0) continue;
    if (flock(lock, LOCK_EX | LOCK_NB) == 0) fs::remove_all(entry.path(), error);
    close(lock);
  }
}

}  // namespace

std::string PhraseDigest(const speech::TtsConfig& voice, std::string_view engine_version,
                         std::string_view text) {
  std::string all;
  const auto add = [&all](std::string_view part) {
    all += fmt::format("{}:{}", part.size(), part);
  };
  add("1");  // of this list
  add(voice.caller.project);
  add(voice.engine);
  add(engine_version);
  add(voice.voice);
  add(voice.language);
  add(fmt::format("{} {}", voice.rate, voice.pitch));
  for (const auto& [name, value] : voice.options) {
    add(name);
    add(value);
  }
  add(text);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  EVP_Digest(all.data(), all.size(), digest.data(), &size, EVP_sha256(), nullptr);
  return Hex({reinterpret_cast<const char*>(digest.data()), size});
}

// ---- Making ----

SpeechCache::Making::Making(SpeechCache& cache, std::string project, std::string phrase,
                            std::string id)
    : cache_(cache), project_(std::move(project)), phrase_(std::move(phrase)), id_(std::move(id)) {}

SpeechCache::Making::~Making() {
  if (!finished_) cache_.index_.Forget(project_, phrase_, id_).IgnoreError();
  cache_.End(phrase_);
}

void SpeechCache::Making::Finish(speech::Phrase phrase) {
  phrase.opus = ToOpus(phrase);
  const absl::Time now = Clock::Real().Now();
  phrase.made_unix_ms = absl::ToUnixMillis(now);
  const std::string bytes = speech::EncodePhrase(phrase);
  if (bytes.size() > speech::kMaxPhraseBytes) return;
  const Entry entry{project_, phrase_, id_, static_cast<int64_t>(bytes.size()),
                    now + cache_.options_.lifetime};
  if (!cache_.Store(entry, bytes)) return;
  const auto published = cache_.index_.Publish(project_, phrase_, id_, cache_.options_.lifetime);
  finished_ = published.ok() && *published;
  if (!finished_) cache_.Remove(phrase_, id_);
}

// ---- the cache ----

SpeechCache::SpeechCache(Options options, redis::Pool& redis, std::string id, Fetch fetch,
                         log::Logger log)
    : options_(std::move(options)),
      folder_(fmt::format("{}/{}{}", options_.directory, kFolderPrefix, id)),
      index_(redis, std::move(id)),
      fetch_(std::move(fetch)),
      log_(std::move(log)) {}

absl::StatusOr<std::unique_ptr<SpeechCache>> SpeechCache::Open(Options options, redis::Pool& redis,
                                                               Fetch fetch, log::Logger log) {
  std::unique_ptr<SpeechCache> cache(
      new SpeechCache(std::move(options), redis, RandomHex(8), std::move(fetch), std::move(log)));
  PARLEY_RETURN_IF_ERROR(cache->MakeFolder());
  cache->sweeper_ = std::thread([raw = cache.get()] {
    while (!raw->stop_.SleepFor(kSweepEvery)) raw->Sweep();
  });
  return cache;
}

absl::Status SpeechCache::MakeFolder() {
  std::error_code error;
  fs::create_directories(options_.directory, error);
  RemoveOrphans(options_.directory);
  // What is said holds names: nobody else reads it.
  if (!error && fs::create_directory(folder_, error))
    fs::permissions(folder_, fs::perms::owner_all, error);
  lock_ = open((folder_ + "/" + kLock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (error || lock_ < 0 || flock(lock_, LOCK_EX | LOCK_NB) != 0)
    return InvalidArgument("the cache folder {} cannot be used", options_.directory);
  return absl::OkStatus();
}

SpeechCache::~SpeechCache() {
  stop_.Cancel();
  if (sweeper_.joinable()) sweeper_.join();
  std::error_code error;
  fs::remove_all(folder_, error);
  if (lock_ >= 0) close(lock_);
}

std::string SpeechCache::PathOf(const Entry& entry) const {
  return fmt::format("{}/{}-{}", folder_, entry.phrase, entry.id);
}

bool SpeechCache::Begin(const std::string& phrase) {
  MutexLock lock(&mutex_);
  return under_way_.insert(phrase).second;
}

void SpeechCache::End(const std::string& phrase) {
  MutexLock lock(&mutex_);
  under_way_.erase(phrase);
  changed_.SignalAll();
}

SpeechCache::Found SpeechCache::Find(const std::string& project, const std::string& phrase,
                                     const speech::Cancellation& cancel) {
  using speech_redis::VoiceIndex;
  const int64_t until_us =
      Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(options_.wait);
  if (Clock::Real().MonotonicMicros() < away_until_us_.load()) return Pass{};
  while (!cancel.cancelled() && Clock::Real().MonotonicMicros() < until_us) {
    {
      MutexLock lock(&mutex_);
      if (under_way_.contains(phrase)) {
        changed_.WaitFor(&mutex_, kLocalPoll);
        continue;
      }
    }
    absl::StatusOr<VoiceIndex::Answer> answer = index_.Claim(project, phrase, options_.making);
    if (!answer.ok()) {
      away_until_us_ = Clock::Real().MonotonicMicros() + kLeaveAloneUs;
      return Pass{};
    }
    if (auto* make = std::get_if<VoiceIndex::Make>(&*answer)) {
      // Redis lets one make it; whoever copied an older recording here has ended or will fail.
      Begin(phrase);
      return std::make_unique<Making>(*this, project, phrase, std::move(make->id));
    }
    if (std::holds_alternative<VoiceIndex::Wait>(*answer)) {
      cancel.SleepFor(kPoll);
      continue;
    }
    const auto& ready = std::get<VoiceIndex::Ready>(*answer);
    if (auto own = ReadOwn(project, phrase, ready.id)) return Hit{std::move(own)};
    if (!Begin(phrase)) continue;
    Hit hit;
    hit.phrase = Copy(project, phrase, ready);
    hit.copied = true;
    End(phrase);
    if (hit.phrase != nullptr) return hit;
  }
  return Pass{};
}

std::shared_ptr<const speech::Phrase> SpeechCache::ReadOwn(const std::string& project,
                                                           const std::string& phrase,
                                                           const std::string& id) {
  std::string path;
  {
    MutexLock lock(&mutex_);
    const auto it = by_phrase_.find(phrase);
    if (it == by_phrase_.end() || it->second->id != id || it->second->project != project)
      return nullptr;
    entries_.splice(entries_.end(), entries_, it->second);
    path = PathOf(*it->second);
  }
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  absl::StatusOr<speech::Phrase> read = speech::DecodePhrase(bytes);
  if (read.ok()) return std::make_shared<const speech::Phrase>(*std::move(read));
  Remove(phrase, id);
  return nullptr;
}

std::shared_ptr<const speech::Phrase> SpeechCache::Copy(
    const std::string& project, const std::string& phrase,
    const speech_redis::VoiceIndex::Ready& ready) {
  for (const speech_redis::VoiceIndex::Keeper& keeper : ready.keepers) {
    absl::StatusOr<std::string> bytes = NotFound("it is not here any more");
    if (keeper.id != index_.id() && !keeper.address.empty())
      bytes = fetch_(keeper.address, project, phrase, ready.id);
    absl::StatusOr<speech::Phrase> read =
        bytes.ok() ? speech::DecodePhrase(*bytes) : absl::StatusOr<speech::Phrase>(bytes.status());
    if (!read.ok()) {
      index_.Forget(project, phrase, ready.id, keeper.id).IgnoreError();
      continue;
    }
    const Entry entry{project, phrase, ready.id, static_cast<int64_t>(bytes->size()),
                      absl::FromUnixMillis(read->made_unix_ms) + options_.lifetime};
    if (Store(entry, *bytes)) {
      const auto kept = index_.Publish(project, phrase, ready.id, absl::ZeroDuration());
      if (!kept.ok() || !*kept) Remove(phrase, ready.id);
    }
    return std::make_shared<const speech::Phrase>(*std::move(read));
  }
  return nullptr;
}

absl::StatusOr<std::string> SpeechCache::Lend(const std::string& project, const std::string& phrase,
                                              const std::string& id) {
  // Read as for oneself: what is damaged is not lent.
  const auto own = ReadOwn(project, phrase, id);
  if (own == nullptr) return NotFound("this replica does not keep the recording");
  return speech::EncodePhrase(*own);
}

absl::Status SpeechCache::Flush(const std::string& project) {
  PARLEY_RETURN_IF_ERROR(index_.Flush(project));
  MutexLock lock(&mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto entry = it++;
    if (entry->project == project) Drop(entry);
  }
  return absl::OkStatus();
}

bool SpeechCache::Store(Entry entry, std::string_view bytes) {
  const std::string path = PathOf(entry);
  const std::string unfinished = path + ".part";
  {
    std::ofstream file(unfinished, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    std::error_code error;
    if (file.good()) fs::rename(unfinished, path, error);
    if (!file.good() || error) {
      fs::remove(unfinished, error);
      log_.Warn("a recording cannot be kept", {{"folder", folder_}});
      return false;
    }
  }
  std::vector<Entry> gone;
  {
    MutexLock lock(&mutex_);
    if (const auto old = by_phrase_.find(entry.phrase); old != by_phrase_.end()) {
      if (old->second->id == entry.id) return true;
      Drop(old->second);
    }
    bytes_ += entry.bytes;
    entries_.push_back(entry);
    by_phrase_[entry.phrase] = std::prev(entries_.end());
    while (bytes_ > options_.max_bytes && entries_.size() > 1) {
      gone.push_back(entries_.front());
      Drop(entries_.begin());
    }
  }
  for (const Entry& old : gone) index_.Forget(old.project, old.phrase, old.id).IgnoreError();
  return true;
}

void SpeechCache::Drop(Entries::iterator entry) {
  std::error_code error;
  fs::remove(PathOf(*entry), error);
  bytes_ -= entry->bytes;
  by_phrase_.erase(entry->phrase);
  entries_.erase(entry);
}

void SpeechCache::Remove(const std::string& phrase, const std::string& id) {
  MutexLock lock(&mutex_);
  const auto it = by_phrase_.find(phrase);
  if (it != by_phrase_.end() && it->second->id == id) Drop(it->second);
}

void SpeechCache::Sweep() {
  const absl::Time now = Clock::Real().Now();
  MutexLock lock(&mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto entry = it++;
    if (entry->until <= now) Drop(entry);
  }
}

int64_t SpeechCache::bytes() const {
  MutexLock lock(&mutex_);
  return bytes_;
}

size_t SpeechCache::size() const {
  MutexLock lock(&mutex_);
  return entries_.size();
}

}  // namespace parley
