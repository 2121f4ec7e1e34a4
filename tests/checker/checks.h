#pragma once
// The invariants of dispatching, decided from the logs alone.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checker/history.h"

namespace parley::checker {

struct Options {
  std::map<std::string, int> caps;  // project → jobs that may be leased at once
  // All dispatches of a project and agent are alike (priority, selector, no `not_before`), so that
  // they are served in the order in which they were made.
  bool one_queue = false;
};

// One broken promise. `invariant` is a name of the list below, which dispatching was designed for:
//
//   AckedDispatchKept    an acknowledged dispatch ends, once, as the API says in the end
//   OneKeyOneDispatch    one idempotency key made one dispatch, and its asker knows it
//   EveryEventOnce       positions rise; no event is there twice; each dispatch ends once
//   LegalStateChange     each change of a job's state is one that exists
//   TerminalIsFinal      nothing happens to a job after its end; a cancelled one never starts again
//   EveryJobEnds         no job is left without an end, no process without a worker
//   TokenNeverRepeats    each lease has a token of its own, higher than all before it
//   StaleWriteRefused    no change was made under an older token, or by who did not hold the job
//   ReasonIsTrue         each reason has its cause in another log
//   NoNeedlessRestart    no second attempt while the first one still renewed its lease
//   OneAdmitted          never two attempts of a job in rooms at once; admitted tokens rise
//   SlotsNeverExceeded   no agent server held, or ran, more jobs than its slots
//   CapNeverExceeded     no project had more jobs leased than its cap
//   QueueOrderKept       with `one_queue`: nobody was served before who had waited longer
struct Violation {
  std::string invariant;
  std::string text;  // for people: what, which job, which lines
};

struct Verdict {
  int acked = 0;                    // dispatches that clients were promised
  int jobs = 0;                     // in the events
  int leases = 0;                   // tokens given out
  int restarts = 0;                 // leases beyond the first of a job
  int started = 0;                  // processes
  int admitted = 0;                 // to rooms
  int refused = 0;                  // by rooms
  int lost = 0;                     // acknowledged, but without an end
  int doubled = 0;                  // jobs admitted twice at once, keys with two dispatches
  std::map<std::string, int> ends;  // "STATE/REASON" → jobs
  std::vector<Violation> violations;
};

Verdict Check(const History& history, const Options& options);

}  // namespace parley::checker
