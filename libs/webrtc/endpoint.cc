#include "webrtc/endpoint.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace parley::webrtc {
namespace {

constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

}  // namespace

bool Endpoint::is_v4() const { return std::equal(kMapped.begin(), kMapped.end(), ip.begin()); }

std::string Endpoint::Ip() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (is_v4()) {
    inet_ntop(AF_INET, ip.data() + 12, text, sizeof text);
  } else {
    inet_ntop(AF_INET6, ip.data(), text, sizeof text);
  }
  return text;
}

std::string Endpoint::Name() const {
  return is_v4() ? fmt::format("{}:{}", Ip(), port) : fmt::format("[{}]:{}", Ip(), port);
}

Endpoint Endpoint::Of(const sockaddr_storage& address) {
  Endpoint endpoint;
  if (address.ss_family == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, &address, sizeof in);
    std::memcpy(endpoint.ip.data(), &in.sin6_addr, 16);
    endpoint.port = ntohs(in.sin6_port);
  } else {
    sockaddr_in in{};
    std::memcpy(&in, &address, sizeof in);
    std::ranges::copy(kMapped, endpoint.ip.begin());
    std::memcpy(endpoint.ip.data() + 12, &in.sin_addr, 4);
    endpoint.port = ntohs(in.sin_port);
  }
  return endpoint;
}

std::optional<Endpoint> Endpoint::Parse(std::string_view ip, uint16_t port) {
  const std::string text(ip);
  Endpoint endpoint;
  endpoint.port = port;
  if (inet_pton(AF_INET, text.c_str(), endpoint.ip.data() + 12) == 1) {
    std::ranges::copy(kMapped, endpoint.ip.begin());
    return endpoint;
  }
  if (inet_pton(AF_INET6, text.c_str(), endpoint.ip.data()) == 1) return endpoint;
  return std::nullopt;
}

std::optional<Endpoint> Endpoint::ParseName(std::string_view name, uint16_t port) {
  if (auto plain = Parse(name, port)) return plain;
  const size_t colon = name.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const std::string_view digits = name.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port == 0) {
    return std::nullopt;
  }
  name = name.substr(0, colon);
  if (name.starts_with('[') && name.ends_with(']')) {
    name = name.substr(1, name.size() - 2);
  } else if (name.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  return Parse(name, port);
}

socklen_t Endpoint::ToSockaddr(int family, sockaddr_storage* out) const {
  if (family == AF_INET6) {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    std::memcpy(&in.sin6_addr, ip.data(), 16);
    in.sin6_port = htons(port);
    std::memcpy(out, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in in{};
  in.sin_family = AF_INET;
  std::memcpy(&in.sin_addr, ip.data() + 12, 4);
  in.sin_port = htons(port);
  std::memcpy(out, &in, sizeof in);
  return sizeof in;
}

}  // namespace parley::webrtc
