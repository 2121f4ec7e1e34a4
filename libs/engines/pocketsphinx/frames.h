#pragma once
// What a gateway and its decoder processes say to each other, over a stream socket: frames of
// uint32 length (little-endian, of what follows), one type byte, payload.
#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "speech/stt.h"

namespace parley::engines {

inline constexpr size_t kMaxFrameBytes = 1 << 20;

enum class FrameType : uint8_t {
  // To the decoder.
  kConfig = 1,        // first: EncodeDecoderConfig
  kAudio = 2,         // PCM16, mono, 16 kHz, little-endian
  kEndUtterance = 3,  // u64 utterance
  kReset = 4,         // empty
  // From the decoder.
  kReady = 65,    // u32 process id; the grammar is compiled, audio may come
  kPartial = 66,  // EncodeTranscript
  kFinal = 67,    // EncodeTranscript
  kError = 68,    // EncodeStatus; last
};

struct Frame {
  FrameType type = FrameType::kReset;
  std::string payload;
};

std::string EncodeFrame(FrameType type, std::string_view payload);

// Puts frames together from the bytes of a socket. Not thread-safe.
class FrameReader {
 public:
  void Append(std::string_view bytes) { buffer_ += bytes; }
  // The next complete frame; none yet; or InvalidArgument (empty, or longer than kMaxFrameBytes),
  // after which the stream is of no use.
  absl::StatusOr<std::optional<Frame>> Next();

 private:
  std::string buffer_;
  size_t taken_ = 0;
};

struct DecoderConfig {
  bool interim_results = false;
  std::string grammar;
  std::vector<std::string> phrases;
};

// Decoders refuse (InvalidArgument) what is cut short or has bytes left over.
std::string EncodeDecoderConfig(const DecoderConfig& config);
absl::StatusOr<DecoderConfig> DecodeDecoderConfig(std::string_view payload);
std::string EncodeTranscript(const speech::SttTranscript& transcript);
absl::StatusOr<speech::SttTranscript> DecodeTranscript(std::string_view payload);
std::string EncodeUint(uint64_t value);
absl::StatusOr<uint64_t> DecodeUint(std::string_view payload);
std::string EncodeStatus(const absl::Status& status);
// What the other side said; InvalidArgument when it said nothing that can be read.
absl::Status DecodeStatus(std::string_view payload);

}  // namespace parley::engines
