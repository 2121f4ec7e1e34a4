#include "base/trace_context.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "base/check.h"

namespace parley {
namespace {

constexpr size_t kLength = 55;  // of version 00
constexpr uint8_t kSampled = 1;

thread_local TraceContext current;

bool AnySet(std::span<const uint8_t> bytes) {
  return std::ranges::any_of(bytes, [](uint8_t byte) { return byte != 0; });
}

// Until one is set: an id of zeros means none.
void Fill(std::span<uint8_t> bytes) {
  do {
    const ssize_t got = getrandom(bytes.data(), bytes.size(), 0);
    PARLEY_CHECK(got == static_cast<ssize_t>(bytes.size()) || errno == EINTR);
  } while (!AnySet(bytes));
}

void AppendHex(std::span<const uint8_t> bytes, std::string& out) {
  static constexpr char kDigits[] = "0123456789abcdef";
  for (const uint8_t byte : bytes) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
}

// Lower case only, as the standard asks. -1: no digit.
int Digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

bool ReadHex(std::string_view text, std::span<uint8_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = Digit(text[2 * i]);
    const int low = Digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

}  // namespace

bool TraceContext::valid() const { return AnySet(trace_id) && AnySet(span_id); }

std::string TraceContext::TraceId() const {
  std::string text;
  if (valid()) AppendHex(trace_id, text);
  return text;
}

std::string TraceContext::Traceparent() const {
  if (!valid()) return {};
  std::string text = "00-";
  text.reserve(kLength);
  AppendHex(trace_id, text);
  text += '-';
  AppendHex(span_id, text);
  text += sampled ? "-01" : "-00";
  return text;
}

TraceContext TraceContext::Parse(std::string_view text) {
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return {};
  TraceContext trace;
  std::array<uint8_t, 1> version{}, flags{};
  if (!ReadHex(text.substr(0, 2), version) || !ReadHex(text.substr(3, 32), trace.trace_id) ||
      !ReadHex(text.substr(36, 16), trace.span_id) || !ReadHex(text.substr(53, 2), flags)) {
    return {};
  }
  if (version[0] == 0xff || (version[0] == 0 && text.size() != kLength)) return {};
  if (text.size() > kLength && text[kLength] != '-') return {};
  trace.sampled = (flags[0] & kSampled) != 0;
  return trace.valid() ? trace : TraceContext();
}

TraceContext TraceContext::Root() {
  TraceContext trace;
  Fill(trace.trace_id);
  Fill(trace.span_id);
  trace.sampled = true;
  return trace;
}

TraceContext TraceContext::Child() const {
  TraceContext child = *this;
  Fill(child.span_id);
  return child;
}

const TraceContext& CurrentTrace() { return current; }

TraceScope::TraceScope(const TraceContext& trace) : before_(current) { current = trace; }
TraceScope::~TraceScope() { current = before_; }

}  // namespace parley
