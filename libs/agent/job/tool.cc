#include "agent/tool.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "base/strings.h"

namespace parley::agent {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxDepth = 16;
constexpr double kMaxWhole = 9'007'199'254'740'992;  // beyond it a double skips integers

const char* TypeName(ToolField::Type type) {
  switch (type) {
    case ToolField::Type::kText:
      return "string";
    case ToolField::Type::kNumber:
      return "number";
    case ToolField::Type::kInteger:
      return "integer";
    case ToolField::Type::kBoolean:
      return "boolean";
    case ToolField::Type::kTexts:
      return "array";
  }
  return "";
}

absl::Status NotA(const ToolField& field, std::string_view wanted) {
  return InvalidArgument("{}: {} is wanted", field.name, wanted);
}

absl::Status CheckText(const ToolField& field, const std::string& value) {
  if (field.one_of.empty()) return absl::OkStatus();
  std::string all;
  for (const std::string& one : field.one_of) {
    if (one == value) return absl::OkStatus();
    all += (all.empty() ? "" : ", ") + one;
  }
  return InvalidArgument("{}: \"{}\" is none of {}", field.name, value, all);
}

absl::Status CheckNumber(const ToolField& field, double value) {
  if (value >= field.min && value <= field.max) return absl::OkStatus();
  return InvalidArgument("{}: {} is out of range", field.name, value);
}

}  // namespace

struct ToolArguments::Impl {
  Json object;
  // Null when not given.
  const Json* Find(const std::string& name) const {
    const auto it = object.find(name);
    return it == object.end() || it->is_null() ? nullptr : &*it;
  }
};

ToolArguments::ToolArguments(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ToolArguments::ToolArguments(ToolArguments&&) noexcept = default;
ToolArguments& ToolArguments::operator=(ToolArguments&&) noexcept = default;
ToolArguments::~ToolArguments() = default;

absl::StatusOr<ToolArguments> ToolArguments::Parse(std::string_view json) {
  auto impl = std::make_unique<Impl>();
  impl->object = JsonNestsWithin(json, kMaxDepth) ? Json::parse(json, nullptr, false)
                                                  : Json(Json::value_t::discarded);
  if (!impl->object.is_object()) return InvalidArgument("the arguments are not a JSON object");
  return ToolArguments(std::move(impl));
}

absl::StatusOr<bool> ToolArguments::Read(const ToolField& field, std::string& value) const {
  const Json* given = impl_->Find(field.name);
  if (given == nullptr) return false;
  if (!given->is_string()) return NotA(field, "a string");
  value = given->get<std::string>();
  PARLEY_RETURN_IF_ERROR(CheckText(field, value));
  return true;
}

absl::StatusOr<bool> ToolArguments::Read(const ToolField& field, int64_t& value) const {
  const Json* given = impl_->Find(field.name);
  if (given == nullptr) return false;
  if (given->is_number_integer() && !given->is_number_unsigned()) {
    value = given->get<int64_t>();
  } else if (given->is_number()) {
    // Models write 3.0 where they mean 3.
    const auto number = given->get<double>();
    if (number != std::floor(number) || std::abs(number) > kMaxWhole) {
      return NotA(field, "a whole number");
    }
    value = static_cast<int64_t>(number);
  } else {
    return NotA(field, "a whole number");
  }
  PARLEY_RETURN_IF_ERROR(CheckNumber(field, static_cast<double>(value)));
  return true;
}

absl::StatusOr<bool> ToolArguments::Read(const ToolField& field, double& value) const {
  const Json* given = impl_->Find(field.name);
  if (given == nullptr) return false;
  if (!given->is_number()) return NotA(field, "a number");
  value = given->get<double>();
  PARLEY_RETURN_IF_ERROR(CheckNumber(field, value));
  return true;
}

absl::StatusOr<bool> ToolArguments::Read(const ToolField& field, bool& value) const {
  const Json* given = impl_->Find(field.name);
  if (given == nullptr) return false;
  if (!given->is_boolean()) return NotA(field, "true or false");
  value = given->get<bool>();
  return true;
}

absl::StatusOr<bool> ToolArguments::Read(const ToolField& field,
                                         std::vector<std::string>& value) const {
  const Json* given = impl_->Find(field.name);
  if (given == nullptr) return false;
  if (!given->is_array()) return NotA(field, "a list of strings");
  value.clear();
  for (const Json& one : *given) {
    if (!one.is_string()) return NotA(field, "a list of strings");
    value.push_back(one.get<std::string>());
    PARLEY_RETURN_IF_ERROR(CheckText(field, value.back()));
  }
  return true;
}

std::string SchemaOf(const std::vector<ToolField>& fields) {
  Json schema = {{"type", "object"}, {"properties", Json::object()}};
  Json required = Json::array();
  for (const ToolField& field : fields) {
    Json property = {{"type", TypeName(field.type)}};
    if (!field.description.empty()) property["description"] = field.description;
    Json& texts = field.type == ToolField::Type::kTexts ? property["items"] : property;
    if (field.type == ToolField::Type::kTexts) texts["type"] = "string";
    if (!field.one_of.empty()) texts["enum"] = field.one_of;
    const bool whole = field.type == ToolField::Type::kInteger;
    const auto limit = [&](double value) {
      return whole ? Json(static_cast<int64_t>(value)) : Json(value);
    };
    if (field.min != std::numeric_limits<double>::lowest()) property["minimum"] = limit(field.min);
    if (field.max != std::numeric_limits<double>::max()) property["maximum"] = limit(field.max);
    schema["properties"][field.name] = std::move(property);
    if (field.required) required.push_back(field.name);
  }
  if (!required.empty()) schema["required"] = std::move(required);
  schema["additionalProperties"] = false;
  return schema.dump();
}

namespace tool_internal {
absl::Status Missing(const ToolField& field) {
  return InvalidArgument("{}: is missing", field.name);
}
}  // namespace tool_internal

}  // namespace parley::agent
