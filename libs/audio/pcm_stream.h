#pragma once
#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace parley::audio {

// Raw PCM16 out of a stream that may begin as a WAV file and may have several channels: drops the
// head and all channels but the first. Belongs to one thread at a time.
class PcmStream {
 public:
  static constexpr size_t kMaxHeadBytes = 64 << 10;
  explicit PcmStream(int channels) : channels_(channels) {}

  // The whole samples of what came so far and was not yet given, as bytes.
  //   InvalidArgument  a WAV head without data within kMaxHeadBytes
  absl::StatusOr<std::string> Append(std::string_view bytes);

 private:
  const int channels_;
  bool head_done_ = false;
  std::string waiting_;
};

}  // namespace parley::audio
