#include "webrtc/ice_agent.h"

#include <nice/agent.h>
#include <nice/interfaces.h>

#include <atomic>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace parley::webrtc {
namespace {

constexpr guint kComponent = 1;  // RTP and RTCP share it

}  // namespace

struct IceThread::Impl {
  GMainContext* context = g_main_context_new();
  GMainLoop* loop = g_main_loop_new(context, FALSE);
  std::thread thread;
};

IceThread::IceThread() : impl_(std::make_unique<Impl>()) {
  impl_->thread = std::thread([impl = impl_.get()] {
    g_main_context_push_thread_default(impl->context);
    g_main_loop_run(impl->loop);
    g_main_context_pop_thread_default(impl->context);
  });
}

IceThread::~IceThread() {
  Post([loop = impl_->loop] { g_main_loop_quit(loop); });
  impl_->thread.join();
  g_main_loop_unref(impl_->loop);
  g_main_context_unref(impl_->context);
}

void IceThread::Post(std::function<void()> work) {
  GSource* source = g_idle_source_new();
  g_source_set_priority(source, G_PRIORITY_DEFAULT);
  g_source_set_callback(
      source,
      [](gpointer data) -> gboolean {
        (*static_cast<std::function<void()>*>(data))();
        return G_SOURCE_REMOVE;
      },
      new std::function<void()>(std::move(work)),
      [](gpointer data) { delete static_cast<std::function<void()>*>(data); });
  g_source_attach(source, impl_->context);
  g_source_unref(source);
}

struct IceAgent::Impl {
  Handlers handlers;
  NiceAgent* agent = nullptr;
  guint stream = 0;

  ~Impl() {
    if (agent == nullptr) return;
    g_signal_handlers_disconnect_by_data(agent, this);
    nice_agent_remove_stream(agent, stream);
    g_object_unref(agent);
  }

  void Tell(NiceCandidate* candidate) const {
    gchar* line = nice_agent_generate_local_candidate_sdp(agent, candidate);
    const std::string_view text = line == nullptr ? "" : line;
    if (text.starts_with("a=")) handlers.on_candidate(std::string(text.substr(2)));
    g_free(line);
  }
  void TellAll() const {
    GSList* list = nice_agent_get_local_candidates(agent, stream, kComponent);
    for (GSList* entry = list; entry != nullptr; entry = entry->next) {
      Tell(static_cast<NiceCandidate*>(entry->data));
    }
    g_slist_free_full(list,
                      [](gpointer one) { nice_candidate_free(static_cast<NiceCandidate*>(one)); });
  }

  static void OnCandidate(NiceAgent*, NiceCandidate* candidate, gpointer data) {
    static_cast<Impl*>(data)->Tell(candidate);
  }
  static void OnState(NiceAgent*, guint, guint, guint state, gpointer data) {
    const auto* self = static_cast<Impl*>(data);
    switch (state) {
      case NICE_COMPONENT_STATE_CONNECTED:
      case NICE_COMPONENT_STATE_READY:
        return self->handlers.on_state(State::kConnected);
      case NICE_COMPONENT_STATE_FAILED:
        return self->handlers.on_state(State::kFailed);
      default:
        return self->handlers.on_state(State::kConnecting);
    }
  }
  static void OnDatagram(NiceAgent*, guint, guint, guint size, gchar* bytes, gpointer data) {
    static_cast<Impl*>(data)->handlers.on_datagram({reinterpret_cast<const uint8_t*>(bytes), size});
  }
};

absl::StatusOr<std::unique_ptr<IceAgent>> IceAgent::Create(IceThread& thread,
                                                           const Options& options,
                                                           Handlers handlers) {
  auto impl = std::make_shared<Impl>();
  impl->handlers = std::move(handlers);
  GMainContext* context = thread.impl_->context;
  impl->agent =
      nice_agent_new_full(context, NICE_COMPATIBILITY_RFC5245,
                          static_cast<NiceAgentOption>(NICE_AGENT_OPTION_ICE_TRICKLE |
                                                       NICE_AGENT_OPTION_CONSENT_FRESHNESS));
  g_object_set(impl->agent, "controlling-mode", options.controlling ? TRUE : FALSE, "upnp", FALSE,
               nullptr);
  impl->stream = nice_agent_add_stream(impl->agent, 1);
  if (impl->stream == 0) return Internal("libnice makes no stream");
  GList* addresses = nice_interfaces_get_local_ips(options.loopback ? TRUE : FALSE);
  for (GList* entry = addresses; entry != nullptr; entry = entry->next) {
    NiceAddress address;
    nice_address_init(&address);
    if (nice_address_set_from_string(&address, static_cast<const char*>(entry->data)) != 0) {
      nice_agent_add_local_address(impl->agent, &address);
    }
  }
  g_list_free_full(addresses, g_free);
  g_signal_connect(impl->agent, "new-candidate-full", G_CALLBACK(Impl::OnCandidate), impl.get());
  g_signal_connect(impl->agent, "component-state-changed", G_CALLBACK(Impl::OnState), impl.get());
  nice_agent_attach_recv(impl->agent, impl->stream, kComponent, context, Impl::OnDatagram,
                         impl.get());
  // There, since it tells of candidates before it returns: no two handlers run at once.
  thread.Post([impl] { nice_agent_gather_candidates(impl->agent, impl->stream); });
  return std::unique_ptr<IceAgent>(new IceAgent(thread, std::move(impl)));
}

IceAgent::IceAgent(IceThread& thread, std::shared_ptr<Impl> impl)
    : thread_(thread), impl_(std::move(impl)) {}

IceAgent::~IceAgent() {
  // Its callbacks run there: none is under way when it goes.
  thread_.Post([impl = impl_]() mutable { impl.reset(); });
}

IceCredentials IceAgent::credentials() const {
  gchar* ufrag = nullptr;
  gchar* pwd = nullptr;
  PARLEY_CHECK(nice_agent_get_local_credentials(impl_->agent, impl_->stream, &ufrag, &pwd) != 0);
  IceCredentials credentials{ufrag, pwd};
  g_free(ufrag);
  g_free(pwd);
  return credentials;
}

void IceAgent::SetRemote(const IceCredentials& credentials) {
  nice_agent_set_remote_credentials(impl_->agent, impl_->stream, credentials.ufrag.c_str(),
                                    credentials.pwd.c_str());
}

void IceAgent::AddCandidate(std::string_view line) {
  const std::string text = "a=" + std::string(line);
  NiceCandidate* candidate =
      nice_agent_parse_remote_candidate_sdp(impl_->agent, impl_->stream, text.c_str());
  if (candidate == nullptr) return;
  GSList* list = g_slist_append(nullptr, candidate);
  nice_agent_set_remote_candidates(impl_->agent, impl_->stream, kComponent, list);
  g_slist_free(list);
  nice_candidate_free(candidate);
}

void IceAgent::Restart() {
  nice_agent_restart(impl_->agent);
  thread_.Post([impl = impl_] { impl->TellAll(); });
}

bool IceAgent::Send(Bytes datagram) {
  return nice_agent_send(impl_->agent, impl_->stream, kComponent,
                         static_cast<guint>(datagram.size()),
                         reinterpret_cast<const gchar*>(datagram.data())) > 0;
}

}  // namespace parley::webrtc
