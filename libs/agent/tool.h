#pragma once
// Tools with typed arguments: a struct says what it holds, and is what the tool gets.
//
//   struct RateOf {
//     std::string room;
//     std::optional<int64_t> nights;
//     static void Describe(parley::agent::ToolFields<RateOf>& fields) {
//       fields.Add("room", &RateOf::room, "Type of room").OneOf({"single", "double", "suite"});
//       fields.Add("nights", &RateOf::nights, "How many nights").Range(1, 30);
//     }
//   };
//   config.tools.push_back(parley::agent::MakeTool<RateOf>(
//       "room_rate", "What a room costs",
//       [](const RateOf& of) -> absl::StatusOr<std::string> { return Price(of.room); }));
//
// The JSON schema that the model sees is made of the same description. Arguments that do not fit it
// never reach the tool: the model is told what is wrong with them. Members may be std::string,
// bool, int64_t, double, std::vector<std::string>, and std::optional of these, which need not be
// given.
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/agent.h"

namespace parley::agent {

// One member, as the model is told of it.
struct ToolField {
  enum class Type { kText, kNumber, kInteger, kBoolean, kTexts };
  std::string name;
  std::string description;
  Type type = Type::kText;
  bool required = true;
  std::vector<std::string> one_of;  // texts; empty: any
  double min = std::numeric_limits<double>::lowest();
  double max = std::numeric_limits<double>::max();

  ToolField& OneOf(std::vector<std::string> values) {
    one_of = std::move(values);
    return *this;
  }
  ToolField& Range(double least, double most) {
    min = least;
    max = most;
    return *this;
  }
};

// The arguments of one call. Immutable once parsed.
class ToolArguments {
 public:
  //   InvalidArgument  not a JSON object, or nested deeper than 16
  static absl::StatusOr<ToolArguments> Parse(std::string_view json);
  ToolArguments(ToolArguments&&) noexcept;
  ToolArguments& operator=(ToolArguments&&) noexcept;
  ~ToolArguments();

  // False: not given (or null). A number is taken for an integer when it is whole.
  //   InvalidArgument  of another type than `field` says, or not one of its values; names the field
  absl::StatusOr<bool> Read(const ToolField& field, std::string& value) const;
  absl::StatusOr<bool> Read(const ToolField& field, int64_t& value) const;
  absl::StatusOr<bool> Read(const ToolField& field, double& value) const;
  absl::StatusOr<bool> Read(const ToolField& field, bool& value) const;
  absl::StatusOr<bool> Read(const ToolField& field, std::vector<std::string>& value) const;

 private:
  struct Impl;
  explicit ToolArguments(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The JSON schema of an object with these fields and no others.
std::string SchemaOf(const std::vector<ToolField>& fields);

namespace tool_internal {
constexpr ToolField::Type TypeOf(const std::string*) { return ToolField::Type::kText; }
constexpr ToolField::Type TypeOf(const int64_t*) { return ToolField::Type::kInteger; }
constexpr ToolField::Type TypeOf(const double*) { return ToolField::Type::kNumber; }
constexpr ToolField::Type TypeOf(const bool*) { return ToolField::Type::kBoolean; }
constexpr ToolField::Type TypeOf(const std::vector<std::string>*) {
  return ToolField::Type::kTexts;
}
absl::Status Missing(const ToolField& field);
}  // namespace tool_internal

// Filled in by Arguments::Describe.
template <typename Arguments>
class ToolFields {
 public:
  // A reference that holds until the next Add.
  template <typename T>
  ToolField& Add(std::string name, T Arguments::*member, std::string description) {
    ToolField& field = Added(std::move(name), std::move(description), static_cast<T*>(nullptr));
    readers_.push_back([member](const ToolField& of, const ToolArguments& from, Arguments& to) {
      const absl::StatusOr<bool> given = from.Read(of, to.*member);
      if (!given.ok()) return given.status();
      return *given ? absl::OkStatus() : tool_internal::Missing(of);
    });
    return field;
  }
  template <typename T>
  ToolField& Add(std::string name, std::optional<T> Arguments::*member, std::string description) {
    ToolField& field = Added(std::move(name), std::move(description), static_cast<T*>(nullptr));
    field.required = false;
    readers_.push_back([member](const ToolField& of, const ToolArguments& from, Arguments& to) {
      T value{};
      const absl::StatusOr<bool> given = from.Read(of, value);
      if (given.ok() && *given) to.*member = std::move(value);
      return given.status();
    });
    return field;
  }

  const std::vector<ToolField>& fields() const { return fields_; }
  //   InvalidArgument  the first field that does not fit
  absl::StatusOr<Arguments> Read(std::string_view json) const {
    absl::StatusOr<ToolArguments> given = ToolArguments::Parse(json);
    if (!given.ok()) return given.status();
    Arguments arguments{};
    for (size_t i = 0; i < readers_.size(); ++i) {
      if (absl::Status status = readers_[i](fields_[i], *given, arguments); !status.ok()) {
        return status;
      }
    }
    return arguments;
  }

 private:
  template <typename T>
  ToolField& Added(std::string name, std::string description, const T* type) {
    ToolField& field = fields_.emplace_back();
    field.name = std::move(name);
    field.description = std::move(description);
    field.type = tool_internal::TypeOf(type);
    return field;
  }
  using Reader = std::function<absl::Status(const ToolField&, const ToolArguments&, Arguments&)>;
  std::vector<ToolField> fields_;
  std::vector<Reader> readers_;
};

template <typename Arguments>
Tool MakeTool(std::string name, std::string description,
              std::function<absl::StatusOr<std::string>(const Arguments&)> run,
              absl::Duration timeout = absl::Seconds(10)) {
  auto fields = std::make_shared<ToolFields<Arguments>>();
  Arguments::Describe(*fields);
  Tool tool;
  tool.name = std::move(name);
  tool.description = std::move(description);
  tool.parameters_json = SchemaOf(fields->fields());
  tool.timeout = timeout;
  tool.run = [fields, run = std::move(run)](std::string_view json) -> absl::StatusOr<std::string> {
    absl::StatusOr<Arguments> arguments = fields->Read(json);
    if (!arguments.ok()) return arguments.status();
    return run(*arguments);
  };
  return tool;
}

}  // namespace parley::agent
