#pragma once
#include <absl/status/statusor.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "audio/opus.h"
#include "room/types.h"

namespace parley::room_server {

// One track's way from the codec it was published in to the one a listener asked for. Belongs to
// one thread at a time.
class Transcoder {
 public:
  static absl::StatusOr<std::unique_ptr<Transcoder>> Create(room::Codec from, room::Codec to);
  // The converted frame, borrowed until the next call.
  //   InvalidArgument  not a frame of 20 ms in that codec
  absl::StatusOr<std::string_view> Convert(std::string_view frame);
  room::Codec to() const { return to_; }

 private:
  explicit Transcoder(room::Codec to) : to_(to) {}
  const room::Codec to_;
  std::optional<audio::OpusEncoder> encoder_;
  std::optional<audio::OpusDecoder> decoder_;
  std::vector<int16_t> samples_;
  std::vector<uint8_t> packet_;
};

}  // namespace parley::room_server
