#include "http/client.h"

#include <curl/curl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/clock.h"
#include "base/ip.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/trace_context.h"
#include "http/authority.h"

namespace parley::http {
namespace {

constexpr size_t kMaxIdle = 32;    // warm handles per reach
constexpr int kCancelPollMs = 50;  // how late a cancel may be noticed
constexpr size_t kMaxHeaderBytes = 64 << 10;
constexpr size_t kMaxErrorBytes = 64 << 10;

// Which origins have authorities of their own.
class Authorities {
 public:
  static Authorities& Get() {
    static auto* const all = new Authorities;
    return *all;
  }
  void Set(const std::string& origin, const std::string& ca_file) {
    MutexLock lock(&mutex_);
    files_[origin] = ca_file;
  }
  // "" = the system's.
  std::string Of(std::string_view url) const {
    const size_t host = url.find("://");
    if (host == std::string_view::npos) return {};
    MutexLock lock(&mutex_);
    const auto it = files_.find(url.substr(0, url.find_first_of("/?#", host + 3)));
    return it == files_.end() ? std::string() : it->second;
  }

 private:
  mutable Mutex mutex_;
  std::map<std::string, std::string, std::less<>> files_ ABSL_GUARDED_BY(mutex_);
};

bool Allowed(IpScope scope, Reach reach) {
  return reach == Reach::kAny || scope == IpScope::kPublic ||
         (reach == Reach::kLoopbackToo && scope == IpScope::kLoopback);
}

// A curl easy handle in a multi of its own: the multi keeps the connections, and waiting on it can
// be cut short. Used by one thread at a time.
struct Handle {
  Handle() : easy(curl_easy_init()), multi(curl_multi_init()) {}
  ~Handle() {
    curl_easy_cleanup(easy);
    curl_multi_cleanup(multi);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  CURL* const easy;
  CURLM* const multi;
};

// One call under way.
struct Transfer {
  CURL* easy = nullptr;
  const Call* call = nullptr;
  const std::function<bool(std::string_view)>* on_data = nullptr;
  Reply reply;
  int64_t received = 0;
  size_t header_bytes = 0;
  bool too_large = false;
  bool refused = false;  // an address out of reach
  bool stopped = false;  // on_data returned false
  std::array<char, CURL_ERROR_SIZE> error{};
};

size_t OnBody(char* data, size_t, size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.received += static_cast<int64_t>(size);
  if (transfer.received > transfer.call->max_response_bytes) {
    transfer.too_large = true;
    return 0;
  }
  long status = 0;
  curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
  if (transfer.on_data == nullptr) {
    transfer.reply.body.append(data, size);
  } else if (status / 100 != 2) {
    std::string& body = transfer.reply.body;
    body.append(data, std::min(size, kMaxErrorBytes - body.size()));
  } else if (!(*transfer.on_data)({data, size})) {
    transfer.stopped = true;
    return 0;
  }
  return size;
}

size_t OnHeader(char* data, size_t, size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::string_view line = Trim({data, size});
  transfer.header_bytes += size;
  if (transfer.header_bytes > kMaxHeaderBytes) {
    transfer.too_large = true;
    return 0;
  }
  if (line.starts_with("HTTP/")) transfer.reply.headers.clear();  // of a redirect before
  const size_t colon = line.find(':');
  if (colon != std::string_view::npos && !line.starts_with("HTTP/")) {
    transfer.reply.headers[ToLower(line.substr(0, colon))] =
        std::string(Trim(line.substr(colon + 1)));
  }
  return size;
}

// Asked for every address that a name resolves to, redirects included, before anything is sent.
curl_socket_t OnOpenSocket(void* user, curlsocktype, curl_sockaddr* address) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (!Allowed(ScopeOf(address->addr), transfer.call->reach)) {
    transfer.refused = true;
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

absl::Status Check(const Call& call) {
  CURLU* url = curl_url();
  const CURLUcode code = curl_url_set(url, CURLUPART_URL, call.url.c_str(), 0);
  char* scheme = nullptr;
  char* host = nullptr;
  if (code == CURLUE_OK) {
    curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
    curl_url_get(url, CURLUPART_HOST, &host, 0);
  }
  absl::Status status;
  if (scheme == nullptr || host == nullptr ||
      (std::string_view(scheme) != "http" && std::string_view(scheme) != "https")) {
    status = InvalidArgument("\"{}\" is not an http or https URL", call.url);
  }
  curl_free(scheme);
  curl_free(host);
  curl_url_cleanup(url);
  for (const auto& [name, value] : call.headers) {
    if (name.empty() || name.find_first_of("\r\n:") != std::string::npos ||
        value.find_first_of("\r\n") != std::string::npos) {
      return InvalidArgument("header \"{}\" has a line break or no name", name);
    }
  }
  return status;
}

void SetMethod(CURL* easy, const Call& call) {
  if (call.method == "HEAD") {
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  } else if (call.method == "GET" && call.body.empty()) {
    curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
  } else {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call.body.size()));
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call.body.data());
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call.method.c_str());
  }
}

curl_slist* Setup(CURL* easy, const Call& call, Transfer* transfer) {
  curl_easy_reset(easy);
  curl_easy_setopt(easy, CURLOPT_URL, call.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  if (const std::string file = Authorities::Get().Of(call.url); !file.empty())
    curl_easy_setopt(easy, CURLOPT_CAINFO, file.c_str());
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, call.max_redirects > 0 ? 1L : 0L);
  curl_easy_setopt(easy, CURLOPT_MAXREDIRS, static_cast<long>(call.max_redirects));
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(absl::ToInt64Milliseconds(call.connect_timeout)));
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                   static_cast<long>(absl::ToInt64Milliseconds(call.timeout)));
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &OnBody);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &OnHeader);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &OnOpenSocket);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error.data());
  curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, nullptr);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "parley");
  // A proxy would resolve names itself, out of our sight.
  if (call.reach != Reach::kAny) curl_easy_setopt(easy, CURLOPT_PROXY, "");
  SetMethod(easy, call);
  curl_slist* headers = curl_slist_append(nullptr, "Expect:");
  for (const auto& [name, value] : call.headers) {
    // curl drops "Name:" and sends "Name;" as a header without a value.
    const std::string line = value.empty() ? name + ";" : name + ": " + value;
    headers = curl_slist_append(headers, line.c_str());
  }
  if (CurrentTrace().valid()) {
    const std::string line = "traceparent: " + CurrentTrace().Traceparent();
    headers = curl_slist_append(headers, line.c_str());
  }
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  return headers;
}

// Runs the transfer to its end; CURLE_ABORTED_BY_CALLBACK when cancelled.
CURLcode Drive(Handle& handle, const std::function<bool()>& cancelled) {
  curl_multi_add_handle(handle.multi, handle.easy);
  CURLcode result = CURLE_ABORTED_BY_CALLBACK;
  for (int running = 1; running > 0;) {
    if (cancelled && cancelled()) break;
    if (curl_multi_perform(handle.multi, &running) != CURLM_OK) {
      result = CURLE_FAILED_INIT;
      break;
    }
    int left = 0;
    while (CURLMsg* message = curl_multi_info_read(handle.multi, &left)) {
      if (message->msg == CURLMSG_DONE) result = message->data.result;
    }
    if (running > 0) {
      curl_multi_poll(handle.multi, nullptr, 0, cancelled ? kCancelPollMs : 1000, nullptr);
    }
  }
  curl_multi_remove_handle(handle.multi, handle.easy);
  return result;
}

absl::Status StatusOf(CURLcode code, const Transfer& transfer) {
  const Call& call = *transfer.call;
  if (code == CURLE_OK) return absl::OkStatus();
  if (transfer.too_large) {
    return ResourceExhausted("the answer is over the limit of {} bytes", call.max_response_bytes);
  }
  if (transfer.stopped || code == CURLE_ABORTED_BY_CALLBACK) return Cancelled("cancelled");
  if (transfer.refused) {
    return WithReason(
        PermissionDenied("the URL leads to an address inside this network, which is not allowed"),
        "ADDRESS_REFUSED");
  }
  const std::string_view text =
      transfer.error[0] != '\0' ? transfer.error.data() : curl_easy_strerror(code);
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return DeadlineExceeded("no complete answer in time: {}", text);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return InvalidArgument("{}", text);
    case CURLE_TOO_MANY_REDIRECTS:
      return Unavailable("more than {} redirects", call.max_redirects);
    default:
      return Unavailable("{}", text);
  }
}

}  // namespace

void SetAuthority(const std::string& origin, const std::string& ca_file) {
  Authorities::Get().Set(origin, ca_file);
}

struct Client::Impl {
  Mutex mutex;
  // By reach: a connection that one call was allowed to make is never handed to a stricter one.
  std::array<std::vector<std::unique_ptr<Handle>>, 3> idle ABSL_GUARDED_BY(mutex);

  std::unique_ptr<Handle> Take(Reach reach) {
    MutexLock lock(&mutex);
    auto& handles = idle[static_cast<size_t>(reach)];
    if (handles.empty()) return std::make_unique<Handle>();
    std::unique_ptr<Handle> handle = std::move(handles.back());
    handles.pop_back();
    return handle;
  }
  void Return(Reach reach, std::unique_ptr<Handle> handle) {
    MutexLock lock(&mutex);
    auto& handles = idle[static_cast<size_t>(reach)];
    if (handles.size() < kMaxIdle) handles.push_back(std::move(handle));
  }

  absl::StatusOr<Reply> Run(const Call& call, const std::function<bool(std::string_view)>* on_data,
                            const std::function<bool()>& cancelled) {
    PARLEY_RETURN_IF_ERROR(Check(call));
    if (call.timeout <= absl::ZeroDuration()) return DeadlineExceeded("no time left for the call");
    std::unique_ptr<Handle> handle = Take(call.reach);
    if (handle->easy == nullptr || handle->multi == nullptr) return Internal("curl cannot start");
    Transfer transfer;
    transfer.easy = handle->easy;
    transfer.call = &call;
    transfer.on_data = on_data;
    curl_slist* headers = Setup(handle->easy, call, &transfer);
    const CURLcode code = Drive(*handle, cancelled);
    long status = 0;
    curl_easy_getinfo(handle->easy, CURLINFO_RESPONSE_CODE, &status);
    transfer.reply.status = static_cast<int>(status);
    curl_slist_free_all(headers);
    curl_easy_reset(handle->easy);
    Return(call.reach, std::move(handle));
    PARLEY_RETURN_IF_ERROR(StatusOf(code, transfer));
    return std::move(transfer.reply);
  }
};

Client::Client() : impl_(std::make_unique<Impl>()) {
  static const CURLcode kGlobal = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)kGlobal;
}

Client::~Client() = default;

absl::StatusOr<Reply> Client::Fetch(const Call& call, const std::function<bool()>& cancelled) {
  return impl_->Run(call, nullptr, cancelled);
}

absl::StatusOr<Reply> Client::Stream(const Call& call,
                                     const std::function<bool(std::string_view)>& on_data,
                                     const std::function<bool()>& cancelled) {
  return impl_->Run(call, &on_data, cancelled);
}

}  // namespace parley::http
