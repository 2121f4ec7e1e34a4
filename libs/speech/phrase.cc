#include "speech/phrase.h"

#include <zlib.h>

#include <cstring>
#include <optional>

#include "audio/pcm.h"
#include "base/status.h"

namespace parley::speech {
namespace {

// "PLPH2", CRC-32 of what follows, then: when it was made (64 bits), rate, samples, words (text,
// start, end), packets. Numbers are 32 bits, little-endian; texts and packets stand behind their
// length.
constexpr std::string_view kMagic = "PLPH2";
constexpr size_t kHead = kMagic.size() + sizeof(uint32_t);

uint32_t Checksum(std::string_view bytes) {
  return static_cast<uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

template <typename Number>
void Put(std::string& out, Number value) {
  char bytes[sizeof(value)];
  std::memcpy(bytes, &value, sizeof(value));
  out.append(bytes, sizeof(value));
}

void PutText(std::string& out, std::string_view text) {
  Put(out, static_cast<uint32_t>(text.size()));
  out += text;
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <typename Number>
  Number Get() {
    Number value = 0;
    const std::string_view part = Take(sizeof(value));
    if (good_) std::memcpy(&value, part.data(), sizeof(value));
    return value;
  }
  std::string_view Take(size_t size) {
    good_ = good_ && size <= bytes_.size();
    if (!good_) return {};
    const std::string_view part = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return part;
  }
  std::string_view Text() { return Take(Get<uint32_t>()); }
  bool good() const { return good_; }
  bool done() const { return good_ && bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool good_ = true;
};

}  // namespace

std::string EncodePhrase(const Phrase& phrase) {
  std::string body;
  Put(body, phrase.made_unix_ms);
  Put(body, static_cast<uint32_t>(phrase.sample_rate_hz));
  PutText(body, audio::AsBytes(phrase.samples));
  Put(body, static_cast<uint32_t>(phrase.words.size()));
  for (const WordTime& word : phrase.words) {
    PutText(body, word.word);
    Put(body, word.start_ms);
    Put(body, word.end_ms);
  }
  Put(body, static_cast<uint32_t>(phrase.opus.size()));
  for (const std::string& packet : phrase.opus) PutText(body, packet);
  std::string out(kMagic);
  Put(out, Checksum(body));
  return out + body;
}

absl::StatusOr<Phrase> DecodePhrase(std::string_view bytes) {
  if (!bytes.starts_with(kMagic) || bytes.size() < kHead)
    return InvalidArgument("this is not a recorded phrase");
  Reader head(bytes.substr(kMagic.size(), sizeof(uint32_t)));
  const std::string_view body = bytes.substr(kHead);
  if (head.Get<uint32_t>() != Checksum(body))
    return InvalidArgument("the recorded phrase is damaged");
  Reader reader(body);
  Phrase phrase;
  phrase.made_unix_ms = reader.Get<int64_t>();
  phrase.sample_rate_hz = static_cast<int>(reader.Get<uint32_t>());
  if (phrase.sample_rate_hz < 8000 || phrase.sample_rate_hz > 48'000)
    return InvalidArgument("the recorded phrase has an impossible rate");
  audio::AppendSamples(reader.Text(), phrase.samples);
  // Counts are what the bytes say, so nothing is set aside by them.
  for (uint32_t left = reader.Get<uint32_t>(); left > 0 && reader.good(); --left) {
    WordTime& word = phrase.words.emplace_back();
    word.word = reader.Text();
    word.start_ms = reader.Get<int32_t>();
    word.end_ms = reader.Get<int32_t>();
  }
  for (uint32_t left = reader.Get<uint32_t>(); left > 0 && reader.good(); --left)
    phrase.opus.emplace_back(reader.Text());
  if (!reader.done()) return InvalidArgument("the recorded phrase is cut short or too long");
  return phrase;
}

}  // namespace parley::speech
