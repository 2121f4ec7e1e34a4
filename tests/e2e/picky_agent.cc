// An agent that looks at its jobs before it takes them. The metadata of a dispatch say how:
//   named       taken, under a name of its own
//   never       refused for good
//   throw       an exception
//   FILE        refused by whoever is asked first, which leaves FILE behind; taken by the next
#include <fcntl.h>
#include <unistd.h>

#include <stdexcept>

#include "agent/run_agent.h"

namespace {

using parley::agent::JobAnswer;

JobAnswer OnRequest(const parley::agent::JobInfo& job) {
  if (job.metadata == "never") return JobAnswer::RejectForGood("the desk is closed");
  if (job.metadata == "throw") throw std::runtime_error("no such guest");
  if (job.metadata == "named") {
    return {.identity = "clara-" + job.room,
            .name = "Clara",
            .metadata = "speaks Dutch",
            .attributes = {{"floor", "ground"}}};
  }
  const int file = open(job.metadata.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600);
  if (file < 0) return JobAnswer::Accept();
  close(file);
  return JobAnswer::Reject("ask the other one");
}

absl::Status Entrypoint(parley::agent::JobContext& job) {
  const absl::Status status = job.Connect();
  job.log().Info("here", {{"identity", job.info().identity}});
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  return parley::agent::RunAgent(
      argc, argv, {.agent_name = "picky", .entrypoint = Entrypoint, .on_request = OnRequest});
}
