#pragma once
// The Wyoming protocol's events: a line of JSON, more JSON, bytes.
#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <string_view>

namespace parley::engines::wyoming {

struct Event {
  std::string type;
  std::string data_json = "{}";  // a JSON object
  std::string payload;
};

std::string Encode(const Event& event);

// Cuts what a server sends into events, however it is cut on the way.
class EventReader {
 public:
  static constexpr size_t kMaxLineBytes = 64 << 10;
  static constexpr size_t kMaxDataBytes = 1 << 20;
  static constexpr size_t kMaxPayloadBytes = 4 << 20;

  void Append(std::string_view bytes) { buffer_ += bytes; }
  // Nullopt: more bytes are needed.
  //   Unavailable  this is not Wyoming, or larger than any server has reason to be; nothing more
  //                can be read
  absl::StatusOr<std::optional<Event>> Next();

 private:
  std::string buffer_;
};

struct AudioFormat {
  int rate_hz = 0;
  int channels = 1;
};
//   Unavailable  not 16 bits, or no rate that can be played
absl::StatusOr<AudioFormat> FormatOf(const Event& event);  // audio-start, audio-chunk
// A text of the event's data; "" when there is none.
std::string TextOf(const Event& event, std::string_view name);
// Of the event error: its code, as far as speech::NameOnly lets it pass.
std::string ErrorName(const Event& event);

Event AudioStart(int rate_hz);
Event AudioChunk(int rate_hz, std::string_view pcm);
Event AudioStop();
Event Transcribe(std::string_view model, std::string_view language);
Event Synthesize(std::string_view text, std::string_view voice, std::string_view language);

}  // namespace parley::engines::wyoming
