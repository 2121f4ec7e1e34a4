#include "session/checkpoint.h"

#include <nlohmann/json.hpp>

#include "base/status.h"

namespace parley::session {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;

json ToJson(const ChatItem& item) {
  json out = {{"kind", static_cast<int>(item.kind)}};
  const auto put = [&out](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value;
  };
  put("role", item.role);
  put("text", item.text);
  put("call_id", item.call_id);
  put("name", item.name);
  put("arguments", item.arguments_json);
  put("summary", item.summary);
  if (item.interrupted) out["interrupted"] = true;
  if (item.is_error) out["error"] = true;
  return out;
}

ChatItem FromJson(const json& in) {
  ChatItem item;
  const int kind = in.at("kind").get<int>();
  if (kind < 0 || kind > static_cast<int>(ChatItem::Kind::kHandoff))
    throw std::out_of_range("kind");
  item.kind = static_cast<ChatItem::Kind>(kind);
  item.role = in.value("role", "");
  item.text = in.value("text", "");
  item.call_id = in.value("call_id", "");
  item.name = in.value("name", "");
  item.arguments_json = in.value("arguments", "");
  item.summary = in.value("summary", "");
  item.interrupted = in.value("interrupted", false);
  item.is_error = in.value("error", false);
  return item;
}

std::string Dump(const Checkpoint& checkpoint, size_t skip) {
  json items = json::array();
  for (size_t i = skip; i < checkpoint.items.size(); ++i)
    items.push_back(ToJson(checkpoint.items[i]));
  const Usage& usage = checkpoint.usage;
  const json out = {{"version", kVersion},
                    {"items", std::move(items)},
                    {"agent", checkpoint.agent},
                    {"user_data", checkpoint.user_data},
                    {"greeted", checkpoint.greeted},
                    {"turns", checkpoint.turns},
                    {"usage",
                     {usage.turns, usage.input_tokens, usage.output_tokens, usage.tts_characters,
                      usage.stt_audio_us}}};
  // A program's data need not be text; what is not comes back with replacement characters.
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

std::string FormatCheckpoint(Checkpoint checkpoint) {
  std::string blob = Dump(checkpoint, 0);
  const size_t count = checkpoint.items.size();
  for (size_t skip = 0; blob.size() > Checkpoint::kMaxBytes && skip < count;) {
    skip += 1 + (count - skip) / 8;
    // No result without its call.
    while (skip < count && checkpoint.items[skip].kind != ChatItem::Kind::kMessage) ++skip;
    blob = Dump(checkpoint, skip);
  }
  return blob;
}

absl::StatusOr<Checkpoint> ParseCheckpoint(std::string_view blob) {
  try {
    const json in = json::parse(blob);
    const int version = in.at("version").get<int>();
    if (version != kVersion)
      return InvalidArgument("the checkpoint has version {}; this program reads {}", version,
                             kVersion);
    Checkpoint checkpoint;
    for (const json& item : in.at("items")) checkpoint.items.push_back(FromJson(item));
    checkpoint.agent = in.value("agent", "");
    checkpoint.user_data = in.value("user_data", "");
    checkpoint.greeted = in.value("greeted", "");
    checkpoint.turns = in.value("turns", uint64_t{0});
    const json& usage = in.at("usage");
    checkpoint.usage = {.turns = usage.at(0).get<int>(),
                        .input_tokens = usage.at(1).get<int64_t>(),
                        .output_tokens = usage.at(2).get<int64_t>(),
                        .tts_characters = usage.at(3).get<int64_t>(),
                        .stt_audio_us = usage.at(4).get<int64_t>()};
    return checkpoint;
  } catch (const std::exception& error) {
    return InvalidArgument("not a checkpoint: {}", error.what());
  }
}

}  // namespace parley::session
