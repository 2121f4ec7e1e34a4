#include "engines/scripted/script.h"

#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/status.h"
#include "base/strings.h"

namespace parley::engines {
namespace {

using Json = nlohmann::json;
using Readers = std::map<std::string, std::function<absl::Status(const Json&)>>;

absl::Status ReadObject(const Json& value, std::string_view where, const Readers& readers) {
  if (!value.is_object()) return InvalidArgument("{} is no object", where);
  for (const auto& [key, field] : value.items()) {
    const auto reader = readers.find(key);
    const std::string name = where.empty() ? key : fmt::format("{}.{}", where, key);
    if (reader == readers.end()) return InvalidArgument("unknown field \"{}\"", name);
    if (const absl::Status status = reader->second(field); !status.ok())
      return Annotate(status, name);
  }
  return absl::OkStatus();
}

std::function<absl::Status(const Json&)> DurationInto(absl::Duration& target) {
  return [&target](const Json& value) -> absl::Status {
    const auto duration =
        value.is_string() ? ParseDuration(value.get<std::string>()) : std::nullopt;
    if (!duration.has_value() || *duration > absl::Minutes(1))
      return InvalidArgument("a duration of at most 1m, such as \"20ms\", is wanted");
    target = *duration;
    return absl::OkStatus();
  };
}

std::function<absl::Status(const Json&)> TextInto(std::string& target) {
  return [&target](const Json& value) -> absl::Status {
    if (!value.is_string()) return InvalidArgument("text is wanted");
    target = value.get<std::string>();
    return absl::OkStatus();
  };
}

template <typename T>
std::function<absl::Status(const Json&)> NumberInto(T& target, T min, T max) {
  return [&target, min, max](const Json& value) -> absl::Status {
    if (!value.is_number() || value.get<T>() < min || value.get<T>() > max)
      return InvalidArgument("a number from {} to {} is wanted", min, max);
    target = value.get<T>();
    return absl::OkStatus();
  };
}

absl::Status ReadStt(const Json& value, Script::Stt& stt) {
  return ReadObject(value, "stt",
                    {{"delay", DurationInto(stt.delay)},
                     {"partials",
                      [&stt](const Json& flag) -> absl::Status {
                        if (!flag.is_boolean()) return InvalidArgument("true or false is wanted");
                        stt.partials = flag.get<bool>();
                        return absl::OkStatus();
                      }},
                     {"utterances", [&stt](const Json& list) -> absl::Status {
                        if (!list.is_array() || list.empty())
                          return InvalidArgument("a list of texts is wanted");
                        stt.utterances.clear();
                        for (const Json& text : list) {
                          if (!text.is_string())
                            return InvalidArgument("a list of texts is wanted");
                          stt.utterances.push_back(text.get<std::string>());
                        }
                        return absl::OkStatus();
                      }}});
}

absl::Status ReadAnswers(const Json& list, std::vector<ScriptedAnswer>& answers) {
  if (!list.is_array() || list.empty()) return InvalidArgument("a list of answers is wanted");
  answers.clear();
  for (const Json& item : list) {
    ScriptedAnswer answer;
    const Readers readers = {{"when", TextInto(answer.when)},
                             {"text", TextInto(answer.text)},
                             {"call", TextInto(answer.call)},
                             {"arguments", [&answer](const Json& value) -> absl::Status {
                                if (!value.is_object()) return InvalidArgument("no object");
                                answer.arguments_json = value.dump();
                                return absl::OkStatus();
                              }}};
    PARLEY_RETURN_IF_ERROR(ReadObject(item, "", readers));
    if (answer.text.empty() == answer.call.empty())
      return InvalidArgument("an answer has either text or call");
    answers.push_back(std::move(answer));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Script> Script::Parse(std::string_view json) {
  const Json root = JsonNestsWithin(json, 16) ? Json::parse(json, nullptr, false)
                                              : Json(Json::value_t::discarded);
  if (root.is_discarded()) return InvalidArgument("the script is no JSON");
  Script script;
  PARLEY_RETURN_IF_ERROR(ReadObject(
      root, "",
      {{"stt", [&script](const Json& value) { return ReadStt(value, script.stt); }},
       {"tts",
        [&script](const Json& value) {
          return ReadObject(value, "tts",
                            {{"delay", DurationInto(script.tts.delay)},
                             {"per_character", DurationInto(script.tts.per_character)},
                             {"sample_rate_hz", NumberInto(script.tts.sample_rate_hz, 8000, 48000)},
                             {"tone_hz", NumberInto(script.tts.tone_hz, 20.0, 4000.0)}});
        }},
       {"llm", [&script](const Json& value) {
          return ReadObject(value, "llm",
                            {{"delay", DurationInto(script.llm.delay)},
                             {"per_token", DurationInto(script.llm.per_token)},
                             {"answers", [&script](const Json& list) {
                                return ReadAnswers(list, script.llm.answers);
                              }}});
        }}}));
  return script;
}

absl::StatusOr<Script> Script::Load(const std::string& path) {
  std::ifstream file(path);
  if (!file) return InvalidArgument("the script {} cannot be read", path);
  std::stringstream text;
  text << file.rdbuf();
  auto script = Parse(text.str());
  if (!script.ok()) return Annotate(script.status(), path);
  return script;
}

}  // namespace parley::engines
