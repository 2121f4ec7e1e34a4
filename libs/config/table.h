#pragma once
// One table of settings makes flags, environment variables, file keys and their documentation.
//
// A setting "broker.offer_timeout" is the flag --broker-offer-timeout, the variable
// PARLEY_BROKER_OFFER_TIMEOUT and the key `offer_timeout` under `broker` of the YAML file. Flag >
// environment > file > default. Unknown keys and values out of range stop the start with the
// setting's name and where the value came from.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace parley::config {

class Table {
 public:
  // `about` is the first line of --help.
  Table(std::string program, std::string about);

  // The target holds the default and must outlive Parse(). `help` ends without a full stop.
  void Bool(std::string_view name, bool* target, std::string_view help);
  void Int(std::string_view name, int* target, int64_t min, int64_t max, std::string_view help);
  void Double(std::string_view name, double* target, double min, double max, std::string_view help);
  void Text(std::string_view name, std::string* target, std::string_view help);
  void Duration(std::string_view name, absl::Duration* target, absl::Duration min,
                absl::Duration max, std::string_view help);
  void Size(std::string_view name, int64_t* target, int64_t min, int64_t max,
            std::string_view help);  // bytes
  void List(std::string_view name, std::vector<std::string>* target,
            std::string_view help);  // comma-separated
  // One of `choices`.
  void Choice(std::string_view name, std::string* target, std::vector<std::string> choices,
              std::string_view help);
  // The setting just added may also come from this variable, after its own one (e.g. LIVEKIT_URL).
  void AlsoFromEnv(std::string_view variable);
  // The setting just added must never be a flag: secrets come from files or the environment.
  void NotAFlag();

  // Reads --config FILE (or PARLEY_CONFIG), the environment and the flags. `handled`: --help or
  // --version was printed.
  struct Outcome {
    absl::Status status;
    bool handled = false;
  };
  Outcome Parse(int argc, const char* const* argv);

  std::string Help() const;
  // Markdown rows: name, default, unit or range, help. For the reference in docs/.
  std::string Reference() const;

 private:
  struct Setting {
    std::string name;
    std::string help;
    std::string fallback;  // printed default
    std::string range;
    std::vector<std::string> also_env;
    bool flag = true;
    bool is_switch = false;
    std::function<absl::Status(std::string_view)> set;
  };
  void Add(std::string_view name, std::string fallback, std::string range, std::string_view help,
           std::function<absl::Status(std::string_view)> set);
  absl::Status ApplyFile(const std::string& path);
  absl::Status Apply(const Setting& setting, std::string_view value, std::string_view origin);

  std::string program_;
  std::string about_;
  std::vector<Setting> settings_;
};

}  // namespace parley::config
