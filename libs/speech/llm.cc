#include "speech/llm.h"

#include <absl/strings/escaping.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace parley::speech {
namespace {

bool IsName(std::string_view host) {
  // "10.0.0.1", "[::1]", "0x7f.1" and "localhost" are none; the last label of a name has a letter.
  const size_t dot = host.rfind('.');
  if (dot == std::string_view::npos || dot + 1 == host.size()) return false;
  const auto part = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.';
  };
  return std::all_of(host.begin(), host.end(), part) &&
         std::isalpha(static_cast<unsigned char>(host[dot + 1])) != 0;
}

bool IsWeb(std::string_view url) {
  constexpr std::string_view kScheme = "https://";
  if (!url.starts_with(kScheme)) return false;
  const std::string_view rest = url.substr(kScheme.size());
  std::string_view host = rest.substr(0, rest.find_first_of("/?#"));
  if (const size_t port = host.find(':'); port != std::string_view::npos) {
    const std::string_view digits = host.substr(port + 1);
    if (digits.empty() || !std::all_of(digits.begin(), digits.end(),
                                       [](unsigned char c) { return std::isdigit(c) != 0; })) {
      return false;
    }
    host = host.substr(0, port);
  }
  return IsName(host) && std::none_of(rest.begin(), rest.end(),
                                      [](unsigned char c) { return c <= 0x20 || c == 0x7f; });
}

bool IsData(std::string_view url) {
  constexpr std::array<std::string_view, 4> kHeads = {
      "data:image/png;base64,", "data:image/jpeg;base64,", "data:image/gif;base64,",
      "data:image/webp;base64,"};
  for (const std::string_view head : kHeads) {
    if (!url.starts_with(head)) continue;
    std::string bytes;
    const std::string_view data = url.substr(head.size());
    return absl::Base64Unescape({data.data(), data.size()}, &bytes) && !bytes.empty();
  }
  return false;
}

}  // namespace

absl::Status CheckImage(const ChatImage& image) {
  if (!IsWeb(image.url) && !IsData(image.url)) {
    return InvalidArgument(
        "a picture is neither https:// with a name nor data:image/{{png,jpeg,gif,webp}};base64,…");
  }
  if (!image.detail.empty() && image.detail != "auto" && image.detail != "low" &&
      image.detail != "high") {
    return InvalidArgument("the detail of a picture must be auto, low or high");
  }
  return absl::OkStatus();
}

bool HasImages(const ChatPrompt& prompt) {
  return std::any_of(prompt.items.begin(), prompt.items.end(), [](const ChatItem& item) {
    const auto* message = std::get_if<ChatMessage>(&item);
    return message != nullptr && !message->images.empty();
  });
}

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}

std::string StopFilter::Push(std::string_view piece) {
  if (stopped_) return {};
  kept_ += piece;
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, kept_.find(stop));
  if (end != std::string::npos) {
    stopped_ = true;
    kept_.resize(end);
    return std::exchange(kept_, {});
  }
  // The longest end that one of them begins with.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, kept_.size()); n > keep; --n) {
      if (std::string_view(kept_).ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
  }
  std::string out = kept_.substr(0, kept_.size() - keep);
  kept_.erase(0, out.size());
  return out;
}

std::string StopFilter::Flush() { return std::exchange(kept_, {}); }

}  // namespace parley::speech
