#include "engines/pocketsphinx/frames.h"

#include <cstring>
#include <utility>

#include "base/status.h"

namespace parley::engines {
namespace {

// Both ends are processes of one host: its own byte order (little-endian) is the wire's.
template <typename T>
void Put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void PutText(std::string& out, std::string_view text) {
  Put<uint32_t>(out, static_cast<uint32_t>(text.size()));
  out += text;
}

// Reads fields one after another; after the first field that is cut short everything is zero and
// Done() says so.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T Take() {
    T value{};
    if (bytes_.size() < sizeof(T)) {
      cut_ = true;
      bytes_ = {};
      return value;
    }
    std::memcpy(&value, bytes_.data(), sizeof(T));
    bytes_.remove_prefix(sizeof(T));
    return value;
  }
  std::string TakeText() {
    const auto size = Take<uint32_t>();
    if (size > bytes_.size()) {
      cut_ = true;
      bytes_ = {};
      return {};
    }
    std::string text(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return text;
  }
  bool cut() const { return cut_; }
  absl::Status Done(std::string_view what) const {
    if (cut_) return InvalidArgument("a {} frame is cut short", what);
    if (!bytes_.empty()) return InvalidArgument("a {} frame has bytes left over", what);
    return absl::OkStatus();
  }

 private:
  std::string_view bytes_;
  bool cut_ = false;
};

}  // namespace

std::string EncodeFrame(FrameType type, std::string_view payload) {
  std::string out;
  out.reserve(5 + payload.size());
  Put<uint32_t>(out, static_cast<uint32_t>(payload.size() + 1));
  Put<uint8_t>(out, static_cast<uint8_t>(type));
  out += payload;
  return out;
}

absl::StatusOr<std::optional<Frame>> FrameReader::Next() {
  const std::string_view rest = std::string_view(buffer_).substr(taken_);
  uint32_t length = 0;
  if (rest.size() >= sizeof(length)) std::memcpy(&length, rest.data(), sizeof(length));
  if (rest.size() >= sizeof(length) && (length == 0 || length > kMaxFrameBytes)) {
    return InvalidArgument("a frame of {} bytes; 1 to {} are allowed", length, kMaxFrameBytes);
  }
  if (rest.size() < sizeof(length) || rest.size() - sizeof(length) < length) {
    buffer_.erase(0, taken_);
    taken_ = 0;
    return std::optional<Frame>();
  }
  Frame frame;
  frame.type = static_cast<FrameType>(static_cast<uint8_t>(rest[sizeof(length)]));
  frame.payload = std::string(rest.substr(sizeof(length) + 1, length - 1));
  taken_ += sizeof(length) + length;
  return std::optional<Frame>(std::move(frame));
}

std::string EncodeDecoderConfig(const DecoderConfig& config) {
  std::string out;
  Put<uint8_t>(out, config.interim_results ? 1 : 0);
  PutText(out, config.grammar);
  Put<uint32_t>(out, static_cast<uint32_t>(config.phrases.size()));
  for (const std::string& phrase : config.phrases) PutText(out, phrase);
  return out;
}

absl::StatusOr<DecoderConfig> DecodeDecoderConfig(std::string_view payload) {
  Fields fields(payload);
  DecoderConfig config;
  config.interim_results = fields.Take<uint8_t>() != 0;
  config.grammar = fields.TakeText();
  const auto phrases = fields.Take<uint32_t>();
  for (uint32_t i = 0; i < phrases && !fields.cut(); ++i)
    config.phrases.push_back(fields.TakeText());
  PARLEY_RETURN_IF_ERROR(fields.Done("config"));
  return config;
}

std::string EncodeTranscript(const speech::SttTranscript& transcript) {
  std::string out;
  Put<uint64_t>(out, transcript.utterance);
  Put<float>(out, transcript.confidence);
  PutText(out, transcript.text);
  Put<uint32_t>(out, static_cast<uint32_t>(transcript.words.size()));
  for (const speech::WordTime& word : transcript.words) {
    PutText(out, word.word);
    Put<int32_t>(out, word.start_ms);
    Put<int32_t>(out, word.end_ms);
    Put<float>(out, word.confidence);
  }
  return out;
}

absl::StatusOr<speech::SttTranscript> DecodeTranscript(std::string_view payload) {
  Fields fields(payload);
  speech::SttTranscript transcript;
  transcript.utterance = fields.Take<uint64_t>();
  transcript.confidence = fields.Take<float>();
  transcript.text = fields.TakeText();
  const auto words = fields.Take<uint32_t>();
  for (uint32_t i = 0; i < words && !fields.cut(); ++i) {
    speech::WordTime word;
    word.word = fields.TakeText();
    word.start_ms = fields.Take<int32_t>();
    word.end_ms = fields.Take<int32_t>();
    word.confidence = fields.Take<float>();
    transcript.words.push_back(std::move(word));
  }
  PARLEY_RETURN_IF_ERROR(fields.Done("transcript"));
  return transcript;
}

std::string EncodeUint(uint64_t value) {
  std::string out;
  Put<uint64_t>(out, value);
  return out;
}

absl::StatusOr<uint64_t> DecodeUint(std::string_view payload) {
  Fields fields(payload);
  const auto value = fields.Take<uint64_t>();
  PARLEY_RETURN_IF_ERROR(fields.Done("number"));
  return value;
}

std::string EncodeStatus(const absl::Status& status) {
  std::string out;
  Put<uint32_t>(out, static_cast<uint32_t>(status.code()));
  PutText(out, ReasonOf(status).reason);
  PutText(out, Message(status));
  return out;
}

absl::Status DecodeStatus(std::string_view payload) {
  Fields fields(payload);
  const auto code = fields.Take<uint32_t>();
  const std::string reason = fields.TakeText();
  const std::string text = fields.TakeText();
  PARLEY_RETURN_IF_ERROR(fields.Done("error"));
  if (code == 0 || code > static_cast<uint32_t>(absl::StatusCode::kUnauthenticated))
    return InvalidArgument("an error frame with code {}", code);
  absl::Status status = Error(static_cast<absl::StatusCode>(code), "{}", text);
  return reason.empty() ? status : WithReason(std::move(status), reason);
}

}  // namespace parley::engines
