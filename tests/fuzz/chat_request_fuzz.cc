// Bodies of /v1/chat/completions: a request that can be sent on and answered, or an error.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "api_server/chat_codec.h"
#include "speech/llm.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using parley::api_server::ChatWriter;
  const auto read = parley::api_server::ReadChat({reinterpret_cast<const char*>(data), size});
  if (!read.ok()) return 0;
  if (read->call.models_size() != 1) std::abort();
  if (read->call.models(0).engine().empty() == read->agent.empty()) std::abort();
  if (read->call.stop_size() > 4) std::abort();
  ChatWriter writer("chatcmpl-1", 0, read->model);
  for (const auto& item : read->call.items()) {
    parley::llm::v1::ChatResponse piece;
    for (const auto& image : item.message().images()) {
      if (item.message().role() != "user") std::abort();
      if (!parley::speech::CheckImage({image.url(), image.detail()}).ok()) std::abort();
      // What others would fetch is on the web, by name.
      if (!image.url().starts_with("data:") && image.url().find('.') == std::string::npos)
        std::abort();
    }
    if (item.has_message()) piece.mutable_text()->set_text(item.message().text());
    if (item.has_tool_call()) *piece.mutable_tool_call() = item.tool_call();
    if (writer.Chunk(piece, true).find("\n\n") == std::string::npos && !item.has_tool_result())
      std::abort();
    if (!writer.Add(piece).ok()) break;
  }
  static_cast<void>(writer.Whole());
  return 0;
}
