#pragma once
// Every key of dispatching. The scripts build the same ones from their KEYS[1]; nothing else does.
#include <string>
#include <string_view>

namespace parley::job::keys {

// The form of all records here, a number. Fields may be added to a form: each version reads those
// it knows, takes a missing one for its default, and leaves the others alone. What an older version
// would misread is a new form: brokers that do not know it stop touching the store, and begin_epoch
// ends their epoch.
inline constexpr int kRecordForm = 1;

// Name → number of pools and back: hash of `n:NAME` → tag, `t:TAG` → name, `count`; the newest form
// of records that a broker writes: `form`.
inline constexpr std::string_view kPools = "parley:pools";
// Which pool workers of an agent name are in: hash of `PROJECT/NAME` → pool.
inline constexpr std::string_view kNames = "parley:names";

// When a broker last said that it uses a library of ours: zset of library → seconds since 1970.
inline constexpr std::string_view kLibraries = "parley:libraries";

// The keys of one pool share a tag and so a slot. `pool` is a name, not yet escaped.
class PoolKeys {
 public:
  explicit PoolKeys(std::string_view pool);
  std::string meta() const;
  std::string dispatch(std::string_view id) const;       // d: hash
  std::string payload(std::string_view id) const;        // m: string
  std::string job(std::string_view id) const;            // j: hash
  std::string jobs_of(std::string_view dispatch) const;  // dj: zset: job → create ms; that stay
  std::string staying(std::string_view project, std::string_view room) const;  // stay: set
  std::string checkpoint(std::string_view id) const;  // c: hash of token, blob; erased at the end
  std::string worker(std::string_view id) const;      // w: hash
  std::string reservations(std::string_view worker) const;  // wr: hash, job → token
  std::string live(std::string_view project) const;         // zset: dispatch → create ms
  std::string past(std::string_view project) const;         // the same of ended ones, newest 10,000
  // Those of one room: rlive, and rpast of the newest 1,000 that ended.
  std::string room_live(std::string_view project, std::string_view room) const;
  std::string room_past(std::string_view project, std::string_view room) const;
  std::string leases() const;                        // zset: worker → ms of the last heartbeat
  std::string fences() const;                        // hash: ended job → lowest token, since ms
  std::string events() const;                        // stream
  std::string inbox(std::string_view broker) const;  // stream
  std::string webhook(std::string_view webhook) const;  // hook: hash of owner, until ms, position

 private:
  std::string Key(std::string_view kind, std::string_view id) const;
  std::string prefix_;
};

// A pool that no agent can be in: the events of a project's rooms are where a pool's are.
std::string RoomsPool(std::string_view project);
// The last report of who is in a room, for dispatches made later: string, kept a day.
std::string Presence(std::string_view project, std::string_view room);

// One project's session records.
std::string Session(std::string_view project, std::string_view id);
std::string Sessions(std::string_view project);  // zset: session → create ms
std::string Erased(std::string_view project, std::string_view id);
// A stream nobody writes: lets a broker without pools wait like any other.
std::string Idle(std::string_view broker);
// Where other brokers reach this one: string host:port, kept a minute.
std::string Address(std::string_view broker);

// AGENT in keys: the escaped name, `*` for configured agents, `%` for the empty name.
std::string AgentPart(std::string_view agent_name, bool configured);

}  // namespace parley::job::keys
