#pragma once
// What kind of address is this? One answer for everything that guards against calls to the inside.
#include <optional>
#include <string>
#include <string_view>

struct sockaddr;

namespace parley {

enum class IpScope {
  kPublic,
  kLoopback,  // 127.0.0.0/8, ::1
  kInside,    // private, link-local, shared, multicast, unspecified, reserved
};

// IPv4 inside IPv6 (mapped, NAT64, 6to4) counts as the IPv4 address. Other families: kInside.
IpScope ScopeOf(const sockaddr& address);

// The scope of a literal in a URL's host part: "10.0.0.1", "[::1]", and the odd forms that
// resolvers read as IPv4 ("127.1", "0x7f000001"). "localhost" and names below it are loopback.
// Nothing when `host` is a name that must be resolved.
std::optional<IpScope> LiteralScope(std::string_view host);

// How others reach a listener on `address` and `port`, as host:port: a wildcard becomes this host's
// name, IPv6 is put into brackets.
std::string ReachableAddress(std::string_view address, int port);
// The same for a listener that was told how others reach it: host:port, or a host alone (a name, an
// IPv4 or IPv6 address), to which the port is added; "" is as above.
std::string ReachableAddress(std::string_view told, std::string_view address, int port);

}  // namespace parley
