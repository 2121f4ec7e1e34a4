// What a language model gives a tool.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "agent/tool.h"

namespace {
struct All {
  std::string text;
  int64_t whole = 0;
  double number = 0;
  bool flag = false;
  std::vector<std::string> texts;
  static void Describe(parley::agent::ToolFields<All>& fields) {
    fields.Add("text", &All::text, "").OneOf({"a", "b"});
    fields.Add("whole", &All::whole, "").Range(-5, 5);
    fields.Add("number", &All::number, "").Range(0, 1);
    fields.Add("flag", &All::flag, "");
    fields.Add("texts", &All::texts, "");
  }
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto fields = [] {
    parley::agent::ToolFields<All> made;
    All::Describe(made);
    return made;
  }();
  const auto read = fields.Read({reinterpret_cast<const char*>(data), size});
  if (read.ok() && (read->whole < -5 || read->whole > 5 || read->number < 0 || read->number > 1)) {
    __builtin_trap();
  }
  return 0;
}
