#include "room_server/room_server.h"

#include "base/ip.h"
#include "base/status.h"
#include "room_server/connector.h"
#include "room_server/host.h"
#include "room_server/services.h"
#include "webrtc/engine.h"

namespace parley {

void RoomServerConfig::Bind(config::Table& table) {
  common.Bind(table, 7105);
  redis.Bind(table);
  table.Text("media_url", &media_url,
             "host:port, or host with its gRPC port, by which clients and agent servers reach this "
             "replica; default is its address and gRPC port");
  table.Text("dispatch.address", &dispatch_address, "host:port of the dispatch broker");
  table.Duration("room.empty_timeout", &empty_timeout, absl::ZeroDuration(), absl::Hours(168),
                 "How long a room waits for its first person");
  table.Duration("room.departure_timeout", &departure_timeout, absl::ZeroDuration(),
                 absl::Hours(168), "How long a room stays after the last person left");
  table.Duration("room.lease", &lease, absl::Seconds(1), absl::Minutes(10),
                 "After this long without a heartbeat to Redis the rooms are free for others");
  table.Duration("room.batch_tick", &batch_tick, absl::Milliseconds(1), absl::Milliseconds(100),
                 "Frames for one agent server that arrive within it share a message");
  table.Int("room.max_rooms", &max_rooms, 1, 10'000'000, "Rooms on this replica");
  table.Text("room.admission_log", &admission_log,
             "File to which a line is appended for each agent admitted, refused or removed");
  table.Text("room.presets_file", &presets_file,
             "JSON file of room configurations by name, for roomPreset in tokens and CreateRoom");
  table.Text("rtc.address", &rtc_address,
             "IP address for the media of browsers; default is the server's own");
  table.Int("rtc.udp_port", &rtc_udp_port, 0, 65'535,
            "The one UDP port for the media of browsers; 0 picks a free one");
  table.Int("rtc.udp_port_last", &rtc_udp_port_last, 0, 65'535,
            "Not 0: the first free UDP port of rtc.udp_port to this one is taken, for several "
            "replicas on one machine");
  table.Int("rtc.tcp_port", &rtc_tcp_port, -1, 65'535,
            "TCP port for the media of browsers whose network lets no UDP through; 0 picks a free "
            "one, -1 has none");
  table.Duration("rtc.resume", &rtc_resume, absl::ZeroDuration(), absl::Minutes(5),
                 "How long a participant stays whose signalling connection broke while its media "
                 "flows, so that it can go on");
  table.List("rtc.announce", &rtc_announce,
             "IP addresses told to browsers (a node's, or the outside of a NAT), with a port where "
             "the NAT changes it (192.0.2.1:5000, [2001:db8::1]:5000); default is rtc.address, or "
             "every address of this machine");
  table.Text("rtc.stun_server", &rtc_stun_server,
             "ip:port of a STUN server that tells how the UDP port looks from outside; that is "
             "told to browsers, too");
  table.List("turn.urls", &turn_urls,
             "Relays for browsers that reach nothing else, e.g. "
             "turn:turn.example.com:3478?transport=udp (coturn with use-auth-secret)");
  table.Text("turn.secret_file", &turn_secret_file,
             "File with the secret of these relays (coturn's static-auth-secret)");
  table.Duration("turn.ttl", &turn_ttl, absl::Minutes(1), absl::Hours(168),
                 "How long the credentials for a relay are good");
}

namespace room_server {

int Run(const RoomServerConfig& config, service::Context& context) {
  return Run(config, context, {});
}

int Run(const RoomServerConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started) {
  auto host = Host::Create(config, context);
  if (!host.ok()) return service::FailStart("room-server", host.status());
  webrtc::EngineOptions rtc;
  rtc.address = config.rtc_address.empty() ? config.common.address : config.rtc_address;
  rtc.udp_port = config.rtc_udp_port;
  rtc.udp_port_last = config.rtc_udp_port_last;
  rtc.tcp_port = config.rtc_tcp_port;
  rtc.announce = config.rtc_announce;
  rtc.stun_server = config.rtc_stun_server;
  auto engine = webrtc::Engine::Start(rtc);
  if (!engine.ok()) return service::FailStart("room-server", engine.status());
  context.log().Info("media of browsers",
                     {{"udp_port", (*engine)->port()},
                      {"tcp_port", (*engine)->tcp_port()},
                      {"announced", fmt::format("{}", fmt::join((*engine)->candidates(), ", "))}});
  auto parts = ConnectorParts::Start();
  if (!parts.ok()) return service::FailStart("room-server", parts.status());
  ConnectorServiceImpl connectors(*host, **parts);
  SignallingServiceImpl signalling(*host, **engine);
  RoomServiceImpl rooms(*host);
  AdmissionServiceImpl admission(*host);
  MediaServiceImpl media(*host);
  service::Context::Hooks hooks;
  hooks.started = [&](int grpc_port, int admin_port) {
    (*host)->Start(ReachableAddress(config.media_url, config.common.address, grpc_port));
    if (started) started(grpc_port, admin_port);
  };
  hooks.drain = [&](absl::Duration drain) { (*host)->Drain(drain); };
  const int code =
      context.Serve({&rooms, &admission, &media, &signalling, &connectors}, std::move(hooks));
  (*host)->Stop();
  (*parts)->engine->Stop();  // what is left of mirrors goes without it
  return code;
}

}  // namespace room_server
}  // namespace parley
