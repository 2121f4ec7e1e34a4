// The channel between agent server and job: cut into pieces of any size, the same bytes make the
// same frames.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "agent/job/frame.h"
#include "parley/job/v1/job.pb.h"

namespace {

std::vector<std::string> Frames(std::string_view bytes, size_t step) {
  parley::agent::FrameReader reader;
  std::vector<std::string> frames;
  for (size_t at = 0; at < bytes.size(); at += step) {
    reader.Append(bytes.substr(at, step));
    while (true) {
      const auto frame = reader.Next();
      if (!frame.ok()) return frames;
      if (!frame->has_value()) break;
      frames.emplace_back(**frame);
    }
  }
  return frames;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> frames = Frames(bytes, size + 1);
  if (Frames(bytes, 1 + size % 7) != frames) std::abort();
  for (const std::string& frame : frames) {
    parley::job::v1::ToJob to;
    parley::job::v1::FromJob from;
    to.ParseFromString(frame);
    from.ParseFromString(frame);
  }
  return 0;
}
