#include "room_server/transcoder.h"

#include "audio/pcm.h"
#include "base/status.h"

namespace parley::room_server {

absl::StatusOr<std::unique_ptr<Transcoder>> Transcoder::Create(room::Codec from, room::Codec to) {
  std::unique_ptr<Transcoder> transcoder(new Transcoder(to));
  if (from == to) return InvalidArgument("nothing to convert");
  if (to == room::Codec::kOpus) {
    PARLEY_ASSIGN_OR_RETURN(transcoder->encoder_, audio::OpusEncoder::Create());
    transcoder->packet_.resize(audio::OpusEncoder::kMaxPacketBytes);
  } else {
    PARLEY_ASSIGN_OR_RETURN(transcoder->decoder_, audio::OpusDecoder::Create(audio::kRoomRateHz));
    transcoder->samples_.resize(audio::OpusDecoder::MaxSamples(audio::kRoomRateHz));
  }
  return transcoder;
}

absl::StatusOr<std::string_view> Transcoder::Convert(std::string_view frame) {
  if (encoder_) {
    samples_.clear();
    audio::AppendSamples(frame, samples_);
    PARLEY_ASSIGN_OR_RETURN(const size_t bytes, encoder_->Encode(samples_, packet_));
    return std::string_view(reinterpret_cast<const char*>(packet_.data()), bytes);
  }
  PARLEY_ASSIGN_OR_RETURN(const size_t count, decoder_->Decode(frame, samples_));
  return audio::AsBytes(std::span(samples_).first(count));
}

}  // namespace parley::room_server
