#include "base/ip.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/strings.h"

namespace parley {
namespace {

struct Range {
  uint32_t address;
  int bits;
};

constexpr std::array<Range, 14> kInsideV4 = {{
    {0x00000000, 8},   // "this" network
    {0x0a000000, 8},   // private
    {0x64400000, 10},  // shared (carrier NAT)
    {0xa9fe0000, 16},  // link-local, cloud metadata
    {0xac100000, 12},  // private
    {0xc0000000, 24},  // protocol assignments
    {0xc0000200, 24},  // documentation
    {0xc0586300, 24},  // 6to4 relays
    {0xc0a80000, 16},  // private
    {0xc6120000, 15},  // benchmarks
    {0xc6336400, 24},  // documentation
    {0xcb007100, 24},  // documentation
    {0xe0000000, 4},   // multicast
    {0xf0000000, 4},   // reserved, broadcast
}};

IpScope ScopeOfV4(uint32_t address) {
  if (address >> 24 == 127) return IpScope::kLoopback;
  for (const Range& range : kInsideV4) {
    if ((address ^ range.address) >> (32 - range.bits) == 0) return IpScope::kInside;
  }
  return IpScope::kPublic;
}

uint32_t V4At(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

IpScope ScopeOfV6(const in6_addr& address) {
  const uint8_t* b = address.s6_addr;
  constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  constexpr std::array<uint8_t, 12> kNat64 = {0, 0x64, 0xff, 0x9b};
  if (IN6_IS_ADDR_LOOPBACK(&address)) return IpScope::kLoopback;
  if (std::memcmp(b, kMapped.data(), 12) == 0 || std::memcmp(b, kNat64.data(), 12) == 0) {
    return ScopeOfV4(V4At(b + 12));
  }
  if (b[0] == 0x20 && b[1] == 0x02) return ScopeOfV4(V4At(b + 2));  // 6to4
  // Only 2000::/3 is in public use; the documentation prefix inside it is not.
  if ((b[0] & 0xe0) != 0x20) return IpScope::kInside;
  if (V4At(b) == 0x20010db8) return IpScope::kInside;
  return IpScope::kPublic;
}

}  // namespace

IpScope ScopeOf(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &address, sizeof v4);
    return ScopeOfV4(ntohl(v4.sin_addr.s_addr));
  }
  if (address.sa_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address, sizeof v6);
    return ScopeOfV6(v6.sin6_addr);
  }
  return IpScope::kInside;
}

std::optional<IpScope> LiteralScope(std::string_view host) {
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    host = host.substr(0, host.find('%'));
  }
  std::string text = ToLower(host);
  while (!text.empty() && text.back() == '.') text.pop_back();
  if (text == "localhost" || text.ends_with(".localhost")) return IpScope::kLoopback;
  in6_addr v6{};
  if (inet_pton(AF_INET6, text.c_str(), &v6) == 1) return ScopeOfV6(v6);
  in_addr v4{};
  if (inet_aton(text.c_str(), &v4) != 0) return ScopeOfV4(ntohl(v4.s_addr));
  return std::nullopt;
}

std::string ReachableAddress(std::string_view address, int port) {
  std::string host(address);
  if (host.empty() || host == "0.0.0.0" || host == "::") {
    char name[256] = {};
    host = gethostname(name, sizeof(name) - 1) == 0 ? name : "localhost";
  }
  if (host.find(':') != std::string::npos && host.front() != '[') host = "[" + host + "]";
  return fmt::format("{}:{}", host, port);
}

std::string ReachableAddress(std::string_view told, std::string_view address, int port) {
  if (told.empty()) return ReachableAddress(address, port);
  in6_addr v6{};
  const bool host_alone = told.find(':') == std::string_view::npos || told.back() == ']' ||
                          inet_pton(AF_INET6, std::string(told).c_str(), &v6) == 1;
  return host_alone ? ReachableAddress(told, port) : std::string(told);
}

}  // namespace parley
