#include "audio/wav.h"

#include <sndfile.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>

#include "audio/pcm.h"
#include "audio/resample.h"
#include "base/status.h"

namespace parley::audio {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 30;
constexpr size_t kRiffHeaderBytes = 12;
constexpr size_t kChunkHeaderBytes = 8;
constexpr uint32_t kUnknownLength = 0xFFFF'FFFF;  // written by programs that stream

struct Close {
  void operator()(SNDFILE* file) const { sf_close(file); }
};
using File = std::unique_ptr<SNDFILE, Close>;

struct Memory {
  std::string_view bytes;
  sf_count_t position = 0;
};

SF_VIRTUAL_IO MemoryIo() {
  return {
      .get_filelen = [](void* user) -> sf_count_t {
        return static_cast<sf_count_t>(static_cast<Memory*>(user)->bytes.size());
      },
      .seek = [](sf_count_t offset, int whence, void* user) -> sf_count_t {
        auto& memory = *static_cast<Memory*>(user);
        const auto size = static_cast<sf_count_t>(memory.bytes.size());
        const sf_count_t base = whence == SEEK_CUR   ? memory.position
                                : whence == SEEK_END ? size
                                                     : 0;
        memory.position = std::clamp<sf_count_t>(base + offset, 0, size);
        return memory.position;
      },
      .read = [](void* to, sf_count_t count, void* user) -> sf_count_t {
        auto& memory = *static_cast<Memory*>(user);
        const std::string_view rest = memory.bytes.substr(static_cast<size_t>(memory.position));
        const size_t taken =
            std::min(rest.size(), static_cast<size_t>(std::max<sf_count_t>(count, 0)));
        std::memcpy(to, rest.data(), taken);
        memory.position += static_cast<sf_count_t>(taken);
        return static_cast<sf_count_t>(taken);
      },
      .write = [](const void*, sf_count_t, void*) -> sf_count_t { return 0; },
      .tell = [](void* user) -> sf_count_t { return static_cast<Memory*>(user)->position; },
  };
}

uint32_t Read32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

// libsndfile reads what is left of a truncated file without a word; whoever recorded it wants to
// know.
absl::Status CheckWhole(std::string_view bytes) {
  if (bytes.empty()) return InvalidArgument("the file is empty");
  if (bytes.size() < kRiffHeaderBytes || bytes.substr(0, 4) != "RIFF" ||
      bytes.substr(8, 4) != "WAVE") {
    return InvalidArgument("not a WAV file (it does not begin with RIFF … WAVE)");
  }
  size_t at = kRiffHeaderBytes;
  while (at + kChunkHeaderBytes <= bytes.size()) {
    const uint32_t length = Read32(bytes, at + 4);
    const size_t have = bytes.size() - at - kChunkHeaderBytes;
    if (bytes.substr(at, 4) == "data") {
      if (length == 0 || have == 0) return InvalidArgument("the WAV file holds no audio");
      if (length > have && length != kUnknownLength) {
        return InvalidArgument("the WAV file is cut short: it has {} of {} bytes of audio", have,
                               length);
      }
      return absl::OkStatus();
    }
    if (length > have) break;
    at += kChunkHeaderBytes + length + (length & 1);
  }
  return InvalidArgument("the WAV file is cut short: it has no audio data");
}

absl::Status CheckFormat(const SF_INFO& info) {
  const int type = info.format & SF_FORMAT_TYPEMASK;
  if (type != SF_FORMAT_WAV && type != SF_FORMAT_WAVEX) return InvalidArgument("not a WAV file");
  switch (info.format & SF_FORMAT_SUBMASK) {
    case SF_FORMAT_PCM_U8:
    case SF_FORMAT_PCM_16:
    case SF_FORMAT_PCM_24:
    case SF_FORMAT_PCM_32:
      break;
    default:
      return InvalidArgument(
          "the WAV file is not PCM; convert it, e.g. with: sox in.wav -e signed -b 16 out.wav");
  }
  if (info.channels < 1 || info.channels > 8) {
    return InvalidArgument("the WAV file has {} channels; 1 to 8 are read", info.channels);
  }
  if (info.samplerate < 8'000 || info.samplerate > 192'000) {
    return InvalidArgument("the WAV file has a rate of {} Hz; 8000 to 192000 are read",
                           info.samplerate);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Wav> ParseWav(std::string_view bytes) {
  PARLEY_RETURN_IF_ERROR(CheckWhole(bytes));
  Memory memory{bytes};
  SF_VIRTUAL_IO io = MemoryIo();
  SF_INFO info{};
  const File file(sf_open_virtual(&io, SFM_READ, &info, &memory));
  if (file == nullptr) return InvalidArgument("not a readable WAV file: {}", sf_strerror(nullptr));
  PARLEY_RETURN_IF_ERROR(CheckFormat(info));
  // The header's count may be a lie; no sample takes less than a byte.
  const auto frames = static_cast<size_t>(
      std::clamp<sf_count_t>(info.frames, 0, static_cast<sf_count_t>(bytes.size())));
  Wav wav{.rate_hz = info.samplerate, .channels = info.channels};
  wav.samples.resize(frames * static_cast<size_t>(info.channels));
  const sf_count_t read =
      sf_readf_short(file.get(), wav.samples.data(), static_cast<sf_count_t>(frames));
  wav.samples.resize(static_cast<size_t>(std::max<sf_count_t>(read, 0)) *
                     static_cast<size_t>(info.channels));
  if (wav.samples.empty()) return InvalidArgument("the WAV file holds no audio");
  return wav;
}

absl::StatusOr<Wav> ReadWav(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return NotFound("cannot open {}: {}", path, std::strerror(errno));
  const std::streamoff size = in.tellg();
  // Folders open, and have a size without sense.
  if (size < 0 || static_cast<size_t>(size) > kMaxFileBytes) {
    return InvalidArgument("{}: not a file of at most 1 GiB", path);
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  in.seekg(0);
  if (!in.read(bytes.data(), size)) return InvalidArgument("{}: cannot be read", path);
  absl::StatusOr<Wav> wav = ParseWav(bytes);
  if (!wav.ok()) return Annotate(wav.status(), path);
  return wav;
}

absl::StatusOr<std::vector<int16_t>> ReadSpeech(const std::string& path, int rate_hz) {
  PARLEY_ASSIGN_OR_RETURN(const Wav wav, ReadWav(path));
  return Resample(MixDown(wav.samples, wav.channels), wav.rate_hz, rate_hz);
}

std::string WavHeader(size_t bytes, int rate_hz) {
  const auto u32 = [](uint32_t v) {
    return std::string({char(v), char(v >> 8), char(v >> 16), char(v >> 24)});
  };
  const auto u16 = [](uint32_t v) { return std::string({char(v), char(v >> 8)}); };
  const auto size = static_cast<uint32_t>(bytes);
  const auto rate = static_cast<uint32_t>(rate_hz);
  return "RIFF" + u32(36 + size) + "WAVEfmt " + u32(16) + u16(1) + u16(1) + u32(rate) +
         u32(rate * 2) + u16(2) + u16(16) + "data" + u32(size);
}

absl::Status WriteWav(const std::string& path, const Wav& wav) {
  SF_INFO info{.samplerate = wav.rate_hz,
               .channels = wav.channels,
               .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
  const File file(sf_open(path.c_str(), SFM_WRITE, &info));
  if (file == nullptr) return InvalidArgument("cannot write {}: {}", path, sf_strerror(nullptr));
  const auto count = static_cast<sf_count_t>(wav.samples.size());
  if (sf_write_short(file.get(), wav.samples.data(), count) != count) {
    return InvalidArgument("cannot write {}: {}", path, sf_strerror(file.get()));
  }
  return absl::OkStatus();
}

absl::Status WriteStereoWav(const std::string& path, int rate_hz, std::span<const int16_t> left,
                            std::span<const int16_t> right) {
  Wav wav{.rate_hz = rate_hz, .channels = 2};
  wav.samples.resize(2 * std::max(left.size(), right.size()));
  for (size_t i = 0; i < left.size(); ++i) wav.samples[2 * i] = left[i];
  for (size_t i = 0; i < right.size(); ++i) wav.samples[2 * i + 1] = right[i];
  return WriteWav(path, wav);
}

}  // namespace parley::audio
