// What a Wyoming server sends: events or an error, however it is cut on the way.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "engines/wyoming/events.h"

namespace {

using parley::engines::wyoming::Event;
using parley::engines::wyoming::EventReader;

std::vector<Event> EventsOf(std::string_view bytes, size_t piece, bool* good) {
  EventReader reader;
  std::vector<Event> events;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    reader.Append(bytes.substr(at, piece));
    while (true) {
      auto event = reader.Next();
      if (!event.ok()) {
        *good = false;
        return events;
      }
      if (!event->has_value()) break;
      events.push_back(**std::move(event));
    }
  }
  return events;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  bool good = true;
  const std::vector<Event> whole = EventsOf(bytes, size + 1, &good);
  bool good_in_pieces = true;
  const std::vector<Event> pieces = EventsOf(bytes, 7, &good_in_pieces);
  if (good != good_in_pieces || whole.size() != pieces.size()) std::abort();
  for (size_t i = 0; i < whole.size(); ++i) {
    if (whole[i].type != pieces[i].type || whole[i].payload != pieces[i].payload) std::abort();
    static_cast<void>(parley::engines::wyoming::FormatOf(whole[i]).ok());
    static_cast<void>(parley::engines::wyoming::TextOf(whole[i], "text"));
    bool again = true;
    const std::vector<Event> echo = EventsOf(parley::engines::wyoming::Encode(whole[i]), 5, &again);
    if (!again || echo.size() != 1 || echo[0].payload != whole[i].payload) std::abort();
  }
  return 0;
}
