#include "job_redis/keys.h"

#include <fmt/format.h>

#include "job/selector.h"

namespace parley::job::keys {

PoolKeys::PoolKeys(std::string_view pool) : prefix_(fmt::format("parley:{{{}}}:", Escape(pool))) {}

std::string PoolKeys::Key(std::string_view kind, std::string_view id) const {
  return fmt::format("{}{}{}", prefix_, kind, id);
}

std::string PoolKeys::meta() const { return Key("meta", ""); }
std::string PoolKeys::dispatch(std::string_view id) const { return Key("d:", id); }
std::string PoolKeys::payload(std::string_view id) const { return Key("m:", id); }
std::string PoolKeys::job(std::string_view id) const { return Key("j:", id); }
std::string PoolKeys::jobs_of(std::string_view dispatch) const { return Key("dj:", dispatch); }
std::string PoolKeys::staying(std::string_view project, std::string_view room) const {
  return fmt::format("{}stay:{}:{}", prefix_, Escape(project), Escape(room));
}
std::string PoolKeys::checkpoint(std::string_view id) const { return Key("c:", id); }
std::string PoolKeys::worker(std::string_view id) const { return Key("w:", id); }
std::string PoolKeys::reservations(std::string_view worker) const { return Key("wr:", worker); }
std::string PoolKeys::live(std::string_view project) const { return Key("live:", Escape(project)); }
std::string PoolKeys::past(std::string_view project) const { return Key("past:", Escape(project)); }
std::string PoolKeys::room_live(std::string_view project, std::string_view room) const {
  return fmt::format("{}rlive:{}:{}", prefix_, Escape(project), Escape(room));
}
std::string PoolKeys::room_past(std::string_view project, std::string_view room) const {
  return fmt::format("{}rpast:{}:{}", prefix_, Escape(project), Escape(room));
}
std::string PoolKeys::leases() const { return Key("leases", ""); }
std::string PoolKeys::fences() const { return Key("fences", ""); }
std::string PoolKeys::events() const { return Key("events", ""); }
std::string PoolKeys::webhook(std::string_view webhook) const { return Key("hook:", webhook); }
std::string PoolKeys::inbox(std::string_view broker) const { return Key("inbox:", broker); }

std::string RoomsPool(std::string_view project) { return "\x01rooms:" + std::string(project); }
std::string Presence(std::string_view project, std::string_view room) {
  return fmt::format("parley:{{{}}}:presence:{}", Escape(RoomsPool(project)), Escape(room));
}
std::string Session(std::string_view project, std::string_view id) {
  return fmt::format("parley:{{{}}}:session:{}", Escape(project), id);
}
std::string Sessions(std::string_view project) {
  return fmt::format("parley:{{{}}}:sessions", Escape(project));
}
std::string Erased(std::string_view project, std::string_view id) {
  return fmt::format("parley:{{{}}}:erased:{}", Escape(project), id);
}
std::string Idle(std::string_view broker) { return fmt::format("parley:idle:{}", broker); }
std::string Address(std::string_view broker) { return fmt::format("parley:broker:{}", broker); }

std::string AgentPart(std::string_view agent_name, bool configured) {
  if (configured) return "*";
  return agent_name.empty() ? "%" : Escape(agent_name);
}

}  // namespace parley::job::keys
