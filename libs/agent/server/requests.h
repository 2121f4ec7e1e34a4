#pragma once
// The program's say about jobs that are offered to it (AgentOptions::on_request).
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "agent/agent.h"
#include "agent/server/job_table.h"
#include "event/loop.h"
#include "parley/dispatch/v1/worker.pb.h"

namespace parley::agent {

// Loop thread only.
class Requests {
 public:
  using Hook = std::function<JobAnswer(const JobInfo&)>;
  using Done = std::function<void(const JobAnswer&)>;

  // `hook` may be empty: then every job is accepted.
  Requests(std::shared_ptr<event::Loop> loop, Hook hook);
  ~Requests();
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  // Whether the program is asked at all.
  bool asks() const { return hook_ != nullptr; }
  // How many questions are open.
  int open() const { return open_; }
  // Asks on a thread of its own; `done` comes on the loop, at once where there is no hook. A hook
  // that does not return is waited for by nobody, but with 64 of them all jobs are rejected.
  void Ask(const parley::dispatch::v1::Assignment& record, Done done);

  // Keeps the answer to an accepted job until it starts, or for a minute.
  void Keep(const JobKey& key, JobAnswer answer);
  bool Knows(const JobKey& key) const { return !asks() || kept_.contains(key); }
  JobAnswer Take(const JobKey& key);
  void Sweep();

 private:
  struct Kept {
    JobAnswer answer;
    int64_t since_us = 0;
  };
  const std::shared_ptr<event::Loop> loop_;
  const std::shared_ptr<const Hook> hook_;
  int open_ = 0;
  std::map<JobKey, Kept> kept_;
  std::shared_ptr<Requests*> self_ = std::make_shared<Requests*>(this);
};

}  // namespace parley::agent
