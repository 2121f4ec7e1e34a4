#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace parley::audio {

// Opus packets as an Ogg file (RFC 7845), in pieces to be appended as they come. Each piece is
// whole pages, so that a file that ends after any of them can be played to there. One thread at a
// time.
class OggOpusWriter {
 public:
  struct Options {
    int channels = 2;
    int pre_skip = 312;   // OpusEncoder::pre_skip
    uint32_t serial = 1;  // names the stream
  };
  using Sink = std::function<void(std::string_view bytes)>;
  // Gives the headers to `sink` at once.
  OggOpusWriter(const Options& options, Sink sink);
  ~OggOpusWriter();
  OggOpusWriter(const OggOpusWriter&) = delete;
  OggOpusWriter& operator=(const OggOpusWriter&) = delete;

  // A packet of 20 ms. A page is given out for every 50 of them.
  void Append(std::string_view packet);
  // Gives out what there is but for the latest packet, as a page.
  void Flush();
  // Gives out the last page, which says so; nothing may follow.
  void End();

 private:
  struct Stream;
  void Put(std::string_view packet, int64_t position, bool last);
  void GivePages(bool all);

  const Sink sink_;
  const std::unique_ptr<Stream> stream_;
  std::string held_;  // the latest packet, which may be the last
  bool holds_ = false;
  int64_t position_ = 0;  // at 48 kHz, after the held packet
  int64_t number_ = 0;
  int in_page_ = 0;
};

}  // namespace parley::audio
