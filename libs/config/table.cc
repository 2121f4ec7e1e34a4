#include "config/table.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include "base/status.h"
#include "base/strings.h"

namespace parley::config {
namespace {

std::string FlagName(std::string_view name) {
  std::string flag = "--";
  for (const char c : name) flag += (c == '.' || c == '_') ? '-' : c;
  return flag;
}

std::string EnvName(std::string_view name) {
  std::string env = "PARLEY_";
  for (const char c : name)
    env += (c == '.') ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return env;
}

std::string Join(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

// Flattens nested maps into dotted names, with the line each value stands on.
void Flatten(const YAML::Node& node, const std::string& prefix,
             std::vector<std::tuple<std::string, std::string, int>>& out) {
  for (const auto& entry : node) {
    const std::string key = entry.first.as<std::string>();
    const std::string name = prefix.empty() ? key : fmt::format("{}.{}", prefix, key);
    if (entry.second.IsMap()) {
      Flatten(entry.second, name, out);
    } else if (entry.second.IsSequence()) {
      std::vector<std::string> items;
      for (const auto& item : entry.second) items.push_back(item.as<std::string>());
      out.emplace_back(name, Join(items, ","), entry.first.Mark().line + 1);
    } else {
      out.emplace_back(name, entry.second.IsNull() ? "" : entry.second.as<std::string>(),
                       entry.first.Mark().line + 1);
    }
  }
}

}  // namespace

Table::Table(std::string program, std::string about)
    : program_(std::move(program)), about_(std::move(about)) {}

void Table::Add(std::string_view name, std::string fallback, std::string range,
                std::string_view help, std::function<absl::Status(std::string_view)> set) {
  Setting setting;
  setting.name = std::string(name);
  setting.help = std::string(help);
  setting.fallback = std::move(fallback);
  setting.range = std::move(range);
  setting.set = std::move(set);
  settings_.push_back(std::move(setting));
}

void Table::Bool(std::string_view name, bool* target, std::string_view help) {
  Add(name, *target ? "true" : "false", "true or false", help,
      [target](std::string_view text) -> absl::Status {
        const std::string lower = ToLower(text);
        if (lower == "true" || lower == "1" || lower == "yes") {
          *target = true;
        } else if (lower == "false" || lower == "0" || lower == "no") {
          *target = false;
        } else {
          return InvalidArgument("\"{}\" is neither true nor false", text);
        }
        return absl::OkStatus();
      });
  settings_.back().is_switch = true;
}

void Table::Int(std::string_view name, int* target, int64_t min, int64_t max,
                std::string_view help) {
  Add(name, fmt::format("{}", *target), fmt::format("{} to {}", min, max), help,
      [target, min, max](std::string_view text) -> absl::Status {
        int64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size())
          return InvalidArgument("\"{}\" is not a whole number", text);
        if (value < min || value > max)
          return InvalidArgument("{} is not within {} to {}", value, min, max);
        *target = static_cast<int>(value);
        return absl::OkStatus();
      });
}

void Table::Double(std::string_view name, double* target, double min, double max,
                   std::string_view help) {
  Add(name, fmt::format("{}", *target), fmt::format("{} to {}", min, max), help,
      [target, min, max](std::string_view text) -> absl::Status {
        double value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size())
          return InvalidArgument("\"{}\" is not a number", text);
        if (!(value >= min && value <= max))
          return InvalidArgument("{} is not within {} to {}", value, min, max);
        *target = value;
        return absl::OkStatus();
      });
}

void Table::Text(std::string_view name, std::string* target, std::string_view help) {
  Add(name, *target, "", help, [target](std::string_view text) {
    *target = std::string(text);
    return absl::OkStatus();
  });
}

void Table::Duration(std::string_view name, absl::Duration* target, absl::Duration min,
                     absl::Duration max, std::string_view help) {
  Add(name, DurationText(*target), fmt::format("{} to {}", DurationText(min), DurationText(max)),
      help, [target, min, max](std::string_view text) -> absl::Status {
        const auto value = ParseDuration(text);
        if (!value)
          return InvalidArgument("\"{}\" is not a duration such as 500ms, 2s or 1h", text);
        if (*value < min || *value > max) {
          return InvalidArgument("{} is not within {} to {}", text, DurationText(min),
                                 DurationText(max));
        }
        *target = *value;
        return absl::OkStatus();
      });
}

void Table::Size(std::string_view name, int64_t* target, int64_t min, int64_t max,
                 std::string_view help) {
  Add(name, SizeText(*target), fmt::format("{} to {}", SizeText(min), SizeText(max)), help,
      [target, min, max](std::string_view text) -> absl::Status {
        const auto value = ParseSize(text);
        if (!value) return InvalidArgument("\"{}\" is not a size such as 64KiB or 256MiB", text);
        if (*value < min || *value > max) {
          return InvalidArgument("{} is not within {} to {}", text, SizeText(min), SizeText(max));
        }
        *target = *value;
        return absl::OkStatus();
      });
}

void Table::List(std::string_view name, std::vector<std::string>* target, std::string_view help) {
  Add(name, Join(*target, ","), "comma-separated", help, [target](std::string_view text) {
    target->clear();
    for (const std::string& part : Split(text, ',')) {
      if (!Trim(part).empty()) target->emplace_back(Trim(part));
    }
    return absl::OkStatus();
  });
}

void Table::Choice(std::string_view name, std::string* target, std::vector<std::string> choices,
                   std::string_view help) {
  const std::string range = Join(choices, " | ");
  Add(name, *target, range, help,
      [target, choices = std::move(choices), range](std::string_view text) -> absl::Status {
        for (const std::string& choice : choices) {
          if (text == choice) {
            *target = choice;
            return absl::OkStatus();
          }
        }
        return InvalidArgument("\"{}\" is not one of {}", text, range);
      });
}

void Table::AlsoFromEnv(std::string_view variable) {
  settings_.back().also_env.emplace_back(variable);
}
void Table::NotAFlag() { settings_.back().flag = false; }

absl::Status Table::Apply(const Setting& setting, std::string_view value, std::string_view origin) {
  absl::Status status = setting.set(value);
  if (status.ok()) return status;
  return InvalidArgument("{} ({}): {}", setting.name, origin, Message(status));
}

absl::Status Table::ApplyFile(const std::string& path) {
  std::vector<std::tuple<std::string, std::string, int>> values;
  try {
    const YAML::Node root = YAML::LoadFile(path);
    if (root.IsNull()) return absl::OkStatus();
    if (!root.IsMap()) return InvalidArgument("{}: the top of a configuration file is a map", path);
    Flatten(root, "", values);
  } catch (const YAML::BadFile&) {
    return NotFound("{}: cannot be read", path);
  } catch (const YAML::Exception& error) {
    return InvalidArgument("{}:{}: {}", path, error.mark.line + 1, error.msg);
  }
  for (const auto& [name, value, line] : values) {
    const Setting* found = nullptr;
    for (const Setting& setting : settings_) {
      if (setting.name == name) found = &setting;
    }
    if (found == nullptr) return InvalidArgument("{}:{}: unknown setting \"{}\"", path, line, name);
    PARLEY_RETURN_IF_ERROR(Apply(*found, value, fmt::format("{}:{}", path, line)));
  }
  return absl::OkStatus();
}

Table::Outcome Table::Parse(int argc, const char* const* argv) {
  CLI::App app(about_, program_);
  app.set_help_flag();
  bool help = false;
  bool version = false;
  std::string config_path;
  if (const char* path = std::getenv("PARLEY_CONFIG")) config_path = path;
  app.add_flag("-h,--help", help);
  app.add_flag("--version", version);
  app.add_option("--config", config_path);
  std::map<std::string, std::string> given;
  for (const Setting& setting : settings_) {
    if (!setting.flag) continue;
    CLI::Option* option = app.add_option_function<std::string>(
        FlagName(setting.name),
        [&given, name = setting.name](const std::string& value) { given[name] = value; });
    if (setting.is_switch) option->expected(0, 1)->default_str("true");
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return {InvalidArgument("{} (see --help)", error.what())};
  }
  if (help || version) {
    const std::string text = help ? Help() : fmt::format("{} {}\n", program_, PARLEY_VERSION);
    std::fputs(text.c_str(), stdout);
    return {absl::OkStatus(), true};
  }
  if (!config_path.empty()) {
    if (absl::Status status = ApplyFile(config_path); !status.ok()) return {status};
  }
  for (const Setting& setting : settings_) {
    std::vector<std::string> variables = {EnvName(setting.name)};
    variables.insert(variables.end(), setting.also_env.begin(), setting.also_env.end());
    for (const std::string& variable : variables) {
      const char* value = std::getenv(variable.c_str());
      if (value == nullptr || *value == '\0') continue;
      if (absl::Status status = Apply(setting, value, variable); !status.ok()) return {status};
      break;
    }
  }
  for (const Setting& setting : settings_) {
    const auto it = given.find(setting.name);
    if (it == given.end()) continue;
    if (absl::Status status = Apply(setting, it->second, FlagName(setting.name)); !status.ok())
      return {status};
  }
  return {absl::OkStatus()};
}

std::string Table::Help() const {
  std::string text = fmt::format(
      "{}\n\nUsage: {} [flags]\n\nEach flag is also an environment variable (--redis-address: "
      "PARLEY_REDIS_ADDRESS) and a key of\n"
      "the YAML file (redis: {{address: …}}). Flag > environment > file > default.\n\n"
      "  --config FILE            YAML file (PARLEY_CONFIG)\n  --help                   this "
      "text\n  --version                version\n",
      about_, program_);
  for (const Setting& setting : settings_) {
    const std::string name = setting.flag ? FlagName(setting.name) : EnvName(setting.name);
    std::string notes;
    if (!setting.fallback.empty()) notes += fmt::format("default {}", setting.fallback);
    if (!setting.range.empty())
      notes += fmt::format("{}{}", notes.empty() ? "" : "; ", setting.range);
    text += fmt::format("  {:<24} {}{}\n", name, setting.help,
                        notes.empty() ? "" : fmt::format(" ({})", notes));
  }
  return text;
}

std::string Table::Reference() const {
  std::string text = "| setting | default | values | what |\n|---|---|---|---|\n";
  for (const Setting& setting : settings_) {
    text += fmt::format("| `{}` | {} | {} | {} |\n", setting.name, setting.fallback, setting.range,
                        setting.help);
  }
  return text;
}

}  // namespace parley::config
