#pragma once
// HTTP(S) client (libcurl underneath). Calls block until done or until the deadline: never on an
// event loop.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace parley::http {

// Which addresses may be reached; checked after name resolution, and again on redirects.
enum class Reach {
  kPublicOnly,   // no loopback, link-local, private, multicast, unspecified addresses
  kLoopbackToo,  // public and loopback (parley dev)
  kAny,
};

struct Call {
  std::string method = "GET";
  std::string url;  // http or https
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  absl::Duration timeout = absl::Seconds(10);
  absl::Duration connect_timeout = absl::Seconds(5);
  int64_t max_response_bytes = 4 << 20;
  int max_redirects = 0;
  Reach reach = Reach::kPublicOnly;
};

struct Reply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// Thread-safe; keeps connections warm between calls.
class Client {
 public:
  Client();
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Any HTTP status is a reply, not an error.
  //   InvalidArgument (URL), PermissionDenied (reason ADDRESS_REFUSED), DeadlineExceeded,
  //   Unavailable (connect, TLS, cut), ResourceExhausted (answer too large), Cancelled (`cancelled`
  //   returned true).
  absl::StatusOr<Reply> Fetch(const Call& call, const std::function<bool()>& cancelled = {});
  // As Fetch, but hands each piece of the body to `on_data` as it arrives; it returns false to stop
  // (Cancelled). The body of an answer that is not 2xx is no part of the stream: its first 64 KiB
  // are in reply.body, which else stays empty.
  absl::StatusOr<Reply> Stream(const Call& call,
                               const std::function<bool(std::string_view)>& on_data,
                               const std::function<bool()>& cancelled = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// For path and query values put into URL templates.
std::string UrlEncode(std::string_view value);

}  // namespace parley::http
