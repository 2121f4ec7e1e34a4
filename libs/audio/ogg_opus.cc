#include "audio/ogg_opus.h"

#include <ogg/ogg.h>

#include <utility>

#include "base/check.h"

namespace parley::audio {
namespace {

constexpr int64_t kPacketSamples = 960;  // 20 ms at 48 kHz
constexpr int kPacketsInPage = 50;

void AppendLittleEndian(std::string& out, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
}

// RFC 7845, section 5.1.
std::string IdHeader(const OggOpusWriter::Options& options) {
  std::string head = "OpusHead";
  head.push_back(1);  // version
  head.push_back(static_cast<char>(options.channels));
  AppendLittleEndian(head, static_cast<uint32_t>(options.pre_skip), 2);
  AppendLittleEndian(head, 48'000, 4);
  AppendLittleEndian(head, 0, 2);  // gain
  head.push_back(0);               // mapping: mono or stereo
  return head;
}

std::string CommentHeader() {
  constexpr std::string_view kVendor = "parley";
  std::string tags = "OpusTags";
  AppendLittleEndian(tags, static_cast<uint32_t>(kVendor.size()), 4);
  tags += kVendor;
  AppendLittleEndian(tags, 0, 4);
  return tags;
}

}  // namespace

struct OggOpusWriter::Stream {
  ogg_stream_state state;
};

OggOpusWriter::OggOpusWriter(const Options& options, Sink sink)
    : sink_(std::move(sink)), stream_(std::make_unique<Stream>()) {
  PARLEY_CHECK(ogg_stream_init(&stream_->state, static_cast<int>(options.serial)) == 0);
  // Each header has a page of its own.
  Put(IdHeader(options), 0, false);
  GivePages(true);
  Put(CommentHeader(), 0, false);
  GivePages(true);
}

OggOpusWriter::~OggOpusWriter() { ogg_stream_clear(&stream_->state); }

void OggOpusWriter::Append(std::string_view packet) {
  if (holds_) {
    Put(held_, position_, false);
    if (++in_page_ >= kPacketsInPage) Flush();
  }
  held_ = packet;
  holds_ = true;
  position_ += kPacketSamples;
}

void OggOpusWriter::Flush() {
  GivePages(true);
  in_page_ = 0;
}

void OggOpusWriter::End() {
  if (!std::exchange(holds_, false)) return;
  Put(held_, position_, true);
  GivePages(true);
}

void OggOpusWriter::Put(std::string_view packet, int64_t position, bool last) {
  ogg_packet out{};
  // The library takes what it does not change by a pointer to what it could.
  out.packet = reinterpret_cast<unsigned char*>(const_cast<char*>(packet.data()));  // NOLINT
  out.bytes = static_cast<long>(packet.size());                                     // NOLINT
  out.b_o_s = number_ == 0 ? 1 : 0;
  out.e_o_s = last ? 1 : 0;
  out.granulepos = position;
  out.packetno = number_++;
  PARLEY_CHECK(ogg_stream_packetin(&stream_->state, &out) == 0);
  GivePages(false);
}

void OggOpusWriter::GivePages(bool all) {
  ogg_page page;
  while ((all ? ogg_stream_flush(&stream_->state, &page)
              : ogg_stream_pageout(&stream_->state, &page)) != 0) {
    const auto text = [](const unsigned char* bytes, long size) {  // NOLINT
      return std::string(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
    };
    sink_(text(page.header, page.header_len) + text(page.body, page.body_len));
  }
}

}  // namespace parley::audio
