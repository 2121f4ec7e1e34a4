#pragma once
// An IP address and port, as a key and as text.
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace parley::webrtc {

// IPv4 addresses are kept in their IPv6-mapped form, so that one address has one key.
struct Endpoint {
  std::array<uint8_t, 16> ip{};
  uint16_t port = 0;
  bool tcp = false;  // ICE over TCP; otherwise UDP

  auto operator<=>(const Endpoint&) const = default;
  bool is_v4() const;
  std::string Ip() const;    // "192.0.2.1", "2001:db8::1"
  std::string Name() const;  // "192.0.2.1:7882", "[2001:db8::1]:7882"

  static Endpoint Of(const sockaddr_storage& address);
  // nullopt: `ip` is not an address.
  static std::optional<Endpoint> Parse(std::string_view ip, uint16_t port);
  // "192.0.2.1", "192.0.2.1:7882", "2001:db8::1" or "[2001:db8::1]:7882"; without a port it is
  // `port`.
  static std::optional<Endpoint> ParseName(std::string_view name, uint16_t port);
  // For a socket of `family`; its size.
  socklen_t ToSockaddr(int family, sockaddr_storage* out) const;
};

struct EndpointHash {
  size_t operator()(const Endpoint& endpoint) const {
    return std::hash<std::string_view>()(
               {reinterpret_cast<const char*>(endpoint.ip.data()), endpoint.ip.size()}) *
               31 +
           endpoint.port;
  }
};

}  // namespace parley::webrtc
