#pragma once
// What really happened, as four kinds of append-only logs tell it: clients (what they were
// promised), agent servers (what ran), room servers (who was admitted), and the broker's stream of
// events. Nothing here knows the broker's code: lines are read by their field names only.
#include <absl/status/status.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace parley::checker {

// Times are microseconds since 1970. `where` is "file:line", for people.

struct ClientRecord {
  enum class What {
    kAsk,        // is about to create, under `key`; says the same again until it is answered
    kAck,        // was answered: dispatch and job are durable
    kGiveUp,     // will not ask again: the outcome stays unknown
    kTerminate,  // is about to end `dispatch` or `job`
    kFinal,      // what it read at the end
  };
  What what = What::kAsk;
  int64_t time_us = 0;
  std::string key;
  std::string dispatch;
  std::string job;
  std::string state;    // kFinal
  std::string reason;   // kFinal
  int64_t wait_ms = 0;  // kAsk: how long the job may be queued
  std::string where;
};

struct WorkerRecord {
  enum class What { kBegin, kSession, kRenew, kStart, kEnter, kEnd, kRelease };
  What what = What::kBegin;
  int64_t time_us = 0;
  std::string worker;
  std::string job;
  uint64_t token = 0;
  int slots = 0;       // kBegin
  int pid = 0;         // kBegin: of the agent server
  std::string reason;  // kEnd
  std::string where;
};

struct RoomRecord {
  enum class What {
    kBegin,  // a run of the room server starts: nobody is admitted
    kAdmit,
    kRefuse,
    kRemove,
    kKilled,  // from whoever killed the server: its rooms are gone
  };
  What what = What::kBegin;
  int64_t time_us = 0;
  std::string server;  // name of the log: one room server, over all its runs
  std::string room_sid;
  std::string job;
  std::string worker;
  uint64_t token = 0;
  uint64_t highest = 0;  // that the room knew when it decided
  std::string where;
};

struct EventRecord {
  uint64_t epoch = 0;
  uint64_t number = 0;
  int64_t time_us = 0;  // whole milliseconds, of the store's clock
  std::string pool;
  std::string type;
  std::string project;
  std::string dispatch;
  std::string job;
  std::string worker;
  std::string agent;
  std::string state;
  std::string reason;
  uint64_t token = 0;
  int attempt = 0;
  std::string where;
};

struct History {
  std::vector<ClientRecord> clients;
  std::vector<WorkerRecord> workers;
  std::vector<RoomRecord> rooms;
  std::vector<EventRecord> events;
};

enum class Source { kClients, kWorkers, kRooms, kEvents };

// Reads one line of a log into `history`. Empty lines are passed over.
//   InvalidArgument  not one of ours; nothing was added
absl::Status AddLine(Source source, std::string_view file, int line, std::string_view text,
                     History& history);

// Reads a whole file; its name without folders is the room server's. NotFound: no such file.
absl::Status AddFile(Source source, const std::string& path, History& history);

}  // namespace parley::checker
