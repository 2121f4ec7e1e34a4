#include "agent/server/agent_server.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "rpc/channel.h"

namespace parley::agent {
namespace {

namespace dispatchv1 = parley::dispatch::v1;
using dispatchv1::ConnectRequest;
using dispatchv1::ConnectResponse;
using dispatchv1::Go;
using dispatchv1::Word;

constexpr absl::Duration kBeat = absl::Seconds(1);  // unless the broker says another
constexpr absl::Duration kShortestBeat = absl::Milliseconds(10);
constexpr absl::Duration kWatch = absl::Milliseconds(250);
constexpr absl::Duration kWarmDelay = absl::Milliseconds(20);  // the job that came goes first
constexpr int64_t kBrokerSilentUs = 5'000'000;                 // five answers to heartbeats missing
constexpr int64_t kStoreAwayUs = 2'000'000;                    // then another broker is asked
constexpr absl::Duration kStartBackOff = absl::Seconds(2);     // doubled with each failure, up to
constexpr absl::Duration kLongestBackOff = absl::Minutes(1);
constexpr int64_t kBrokerLostUs = 12'000'000;  // a lease
constexpr int64_t kSayAgainUs = 3'000'000;
constexpr size_t kSweptToTrim = 1000;
constexpr uint64_t kBeatsPerList = 10;    // of recordings
constexpr size_t kWordBytes = 512 << 10;  // of one message
constexpr absl::Duration kLeaveTimeout = absl::Seconds(5);

// In Kubernetes the pod's name, by which the broker tells it apart.
std::string Hostname() {
  if (const char* pod = std::getenv("POD_NAME"); pod != nullptr && *pod != '\0') return pod;
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

}  // namespace

AgentServer::AgentServer(JobSurroundings& around, Identity identity,
                         std::map<std::string, std::string> labels,
                         std::function<std::string()> token, Callbacks callbacks)
    : around_(around),
      identity_(std::move(identity)),
      labels_(std::move(labels)),
      callbacks_(std::move(callbacks)),
      table_(around.config.EffectiveSlots()),
      broker_(around.loop, rpc::MakeChannel(around.config.broker_address), std::move(token), *this),
      requests_(around.loop, around.config.on_request),
      zygote_watcher_(*around.loop, around.zygote.fd()),
      beat_timer_(*around.loop),
      watch_timer_(*around.loop),
      warm_timer_(*around.loop),
      drain_timer_(*around.loop) {}

AgentServer::~AgentServer() = default;

void AgentServer::Start() {
  around_.audit.Begin(identity_.worker_id, table_.slots());
  zygote_watcher_.Start(true, false, [this](bool, bool) { OnZygote(); });
  if (absl::Status status = around_.zygote.Start(around_.config.job_cgroups); !status.ok())
    callbacks_.on_failed(status);
}

AgentServer::Snapshot AgentServer::Now() const {
  MutexLock lock(&snapshot_mutex_);
  return snapshot_;
}

bool AgentServer::accepting() const {
  return !draining_ && !failed_ && load_ <= around_.config.load_threshold && !backing_off();
}

// Its jobs have not started lately: others may have them.
bool AgentServer::backing_off() const {
  return start_failures_ > 0 &&
         std::none_of(processes_.begin(), processes_.end(),
                      [](const auto& process) { return process.second->ready(); });
}

void AgentServer::UpdateGauges() {
  AgentServerMetrics& metrics = around_.metrics;
  metrics.slots_used.Set(table_.active());
  metrics.slots_free.Set(table_.slots() - table_.active());
  metrics.warm_processes.Set(static_cast<double>(
      std::count_if(processes_.begin(), processes_.end(),
                    [](const auto& process) { return !process.second->assigned(); })));
  metrics.connected.Set(broker_.registered() ? 1 : 0);
  metrics.load_ratio.Set(load_);
  const bool ready = broker_.registered() && !draining_;
  if (std::exchange(said_ready_, ready) != ready && callbacks_.on_ready) callbacks_.on_ready(ready);
  MutexLock lock(&snapshot_mutex_);
  snapshot_ = {
      identity_.worker_id, broker_.registered(), draining_, table_.active(), load_, cgroups_};
}

// ---- the broker ----

void AgentServer::FillRegister(dispatchv1::Register& request) {
  const AgentServerConfig& config = around_.config;
  request.set_worker_id(identity_.worker_id);
  request.set_instance(identity_.instance);
  request.set_pool(config.EffectivePool());
  request.set_serves_configured(config.serves_configured);
  for (const std::string& name : config.agent_names) request.add_agent_names(name);
  request.set_slots(table_.slots());
  request.set_version(config.EffectiveVersion());
  request.set_region(config.region);
  request.mutable_labels()->insert(labels_.begin(), labels_.end());
  request.set_deployment(config.deployment);
  *request.mutable_report() = table_.MakeReport();
  request.set_accepts_all(!requests_.asks());
  request.set_hostname(Hostname());
  request.set_load(load_);
  request.set_load_threshold(config.load_threshold);
  request.set_draining(draining_);
}

void AgentServer::OnBroker(const ConnectResponse& response) {
  switch (response.message_case()) {
    case ConnectResponse::kRegistered:
      return OnRegistered(response.registered());
    case ConnectResponse::kHeartbeatAck:
      store_available_ = response.heartbeat_ack().store_available();
      if (store_available_) {
        around_.audit.Renew(response.heartbeat_ack().seq());
        store_away_since_us_ = 0;
      } else if (store_away_since_us_ == 0) {
        store_away_since_us_ = around_.loop->NowMicros();
      }
      return;
    case ConnectResponse::kVerdicts:
      return OnVerdicts(response.verdicts());
    case ConnectResponse::kOffer:
      return OnOffer(response.offer());
    case ConnectResponse::kGo:
      return OnGo(response.go());
    case ConnectResponse::kStop: {
      const auto& stop = response.stop();
      return StopJob({stop.job_id(), stop.fencing_token()},
                     stop.has_grace() ? absl::Seconds(stop.grace().seconds()) +
                                            absl::Nanoseconds(stop.grace().nanos())
                                      : around_.config.stop_grace);
    }
    case ConnectResponse::kRevoke: {
      // This token and all older ones are over.
      const JobKey key{response.revoke().job_id(), response.revoke().fencing_token()};
      for (const JobKey& older : table_.OlderThan(key)) RevokeJob(older);
      return RevokeJob(key);
    }
    case ConnectResponse::kReportRequest: {
      ConnectRequest request;
      *request.mutable_report() = table_.MakeReport();
      broker_.Send(std::move(request));
      table_.SayAgain(around_.loop->NowMicros());
      return SayWords();
    }
    case ConnectResponse::kDrain: {
      const auto& drain = response.drain();
      around_.log.Info("asked to drain");
      return Drain(drain.has_deadline()
                       ? std::max(absl::ZeroDuration(),
                                  absl::FromUnixSeconds(drain.deadline().seconds()) +
                                      absl::Nanoseconds(drain.deadline().nanos()) - absl::Now())
                       : around_.config.common.drain);
    }
    case ConnectResponse::kReadLogs:
      return OnReadLogs(response.read_logs());
    case ConnectResponse::kHandOver:
      return OnHandOver(response.hand_over());
    case ConnectResponse::kTakeOver:
      return OnTakeOver(response.take_over());
    case ConnectResponse::kEraseRecordings: {
      const auto& ids = response.erase_recordings().session_ids();
      return around_.recordings.Erase({ids.begin(), ids.end()});
    }
    default:
      return;
  }
}

void AgentServer::OnReadLogs(const dispatchv1::ReadLogs& request) {
  const std::vector<JobKey> active = table_.Active();
  const bool live = std::any_of(active.begin(), active.end(),
                                [&](const JobKey& key) { return key.job_id == request.job_id(); });
  around_.logs.Read(request, live,
                    [this](ConnectRequest chunk) { return broker_.Send(std::move(chunk)); });
}

void AgentServer::OnRegistered(const dispatchv1::Registered& registered) {
  around_.log.Info("registered", {{"pool", registered.pool()},
                                  {"slots", table_.slots()},
                                  {"jobs", table_.active()},
                                  {"connect_seq", broker_.connect_seq()}});
  around_.audit.Session(broker_.connect_seq());
  if (callbacks_.on_session) callbacks_.on_session(identity_, broker_.connect_seq());
  for (const auto& verdict : registered.jobs()) {
    Obey({verdict.job_id(), verdict.fencing_token()},
         table_.OnResume(verdict, around_.loop->NowMicros()));
  }
  table_.SayAgain(around_.loop->NowMicros());
  SayWords();
  if (draining_) {  // the broker may be another one than the one that was told
    ConnectRequest request;
    request.mutable_drain();
    broker_.Send(std::move(request));
  }
  asked_us_.clear();  // what was asked for may have been lost with the stream
  beats_ = 0;
  store_available_ = true;
  store_away_since_us_ = 0;
  absl::Duration beat = absl::Seconds(registered.heartbeat_interval().seconds()) +
                        absl::Nanoseconds(registered.heartbeat_interval().nanos());
  if (beat < kShortestBeat) beat = kBeat;
  beat_timer_.StartRepeating(beat, [this] { Beat(); });
  UpdateGauges();
  if (std::exchange(registered_once_, true)) return;
  if (callbacks_.on_registered) callbacks_.on_registered();
}

bool AgentServer::OnBrokerLost(const absl::Status& status, bool was_registered) {
  around_.logs.ForgetReaders();
  UpdateGauges();
  if (drained_ || failed_) return false;
  around_.metrics.reconnects.Increment();
  around_.log.Warn(was_registered ? "lost the broker" : "cannot reach the broker",
                   {{"address", around_.config.broker_address}, {"error", Message(status)}});
  if (absl::IsAborted(status) || absl::IsAlreadyExists(status)) {
    // Our session is over, its jobs are somebody else's: end our copies, come back as a new worker.
    if (!registered_once_ || ReasonOf(status).reason == "NAME_TAKEN") {
      callbacks_.on_failed(Annotate(status, "the broker refuses this agent server"));
      return false;
    }
    replaced_ = true;
    for (const JobKey& key : table_.Active()) RevokeJob(key);
    TakeNewIdentityIfIdle();
    return false;
  }
  const bool refused = absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) ||
                       absl::IsInvalidArgument(status);
  if (refused && !registered_once_) {
    callbacks_.on_failed(Annotate(status, "the broker refuses this agent server"));
    return false;
  }
  return true;
}

void AgentServer::TakeNewIdentityIfIdle() {
  if (!replaced_ || table_.active() > 0) return;
  replaced_ = false;
  identity_ = {NewId(kWorkerPrefix), RandomHex(16)};
  around_.log.Warn("the broker had ended our session; coming back as a new worker",
                   {{"new_worker_id", identity_.worker_id}});
  table_.Clear();
  around_.audit.Begin(identity_.worker_id, table_.slots());
  around_.media.SetWorker(identity_.worker_id, identity_.instance);
  broker_.Start();
}

void AgentServer::OnOffer(const dispatchv1::Offer& offer) {
  const JobKey key{offer.assignment().job_id(), offer.assignment().fencing_token()};
  if (!accepting() || table_.active() + requests_.open() >= table_.slots()) {
    return AnswerOffer(key, JobAnswer::Reject(draining_ ? "draining" : "no free slot"));
  }
  requests_.Ask(offer.assignment(),
                [this, key](const JobAnswer& answer) { AnswerOffer(key, answer); });
}

void AgentServer::AnswerOffer(const JobKey& key, const JobAnswer& answer) {
  ConnectRequest request;
  Word& word = *request.mutable_words()->add_words();
  word.set_job_id(key.job_id);
  word.set_fencing_token(key.token);
  if (answer.verdict == JobAnswer::Verdict::kAccept) {
    word.set_kind(Word::ACCEPTED);
    requests_.Keep(key, answer);
  } else {
    word.set_kind(Word::REJECTED);
    word.set_error(answer.reason);
    word.set_final(answer.verdict == JobAnswer::Verdict::kRejectForGood);
    around_.log.Info(
        "rejected a job",
        {{"job_id", key.job_id}, {"reason", answer.reason}, {"for_good", word.final()}});
  }
  broker_.Send(std::move(request));
}

void AgentServer::OnGo(const Go& go) {
  const JobKey key{go.assignment().job_id(), go.assignment().fencing_token()};
  switch (table_.Admit(go.assignment())) {
    case JobTable::Admission::kKnown:
      return;
    case JobTable::Admission::kOver:
    case JobTable::Admission::kFull: {
      around_.audit.Release(key, 0);
      // Said once here, and again by the next report's silence.
      ConnectRequest request;
      Word& word = *request.mutable_words()->add_words();
      word.set_job_id(key.job_id);
      word.set_fencing_token(key.token);
      word.set_kind(Word::RELEASED);
      broker_.Send(std::move(request));
      return;
    }
    case JobTable::Admission::kStart:
      break;
  }
  for (const JobKey& older : table_.OlderThan(key)) RevokeJob(older);
  if (draining_ || failed_) return Release(key);
  if (requests_.Knows(key)) {
    StartJob(go);
  } else {  // it comes without an offer: taken over, or accepted before the stream broke
    undecided_[key] = go;
    requests_.Ask(go.assignment(),
                  [this, key](const JobAnswer& answer) { OnDecided(key, answer); });
  }
  UpdateGauges();
}

void AgentServer::OnDecided(const JobKey& key, const JobAnswer& answer) {
  const auto found = undecided_.find(key);
  if (found == undecided_.end()) return;  // revoked meanwhile
  const Go go = std::move(found->second);
  undecided_.erase(found);
  if (answer.verdict != JobAnswer::Verdict::kAccept) return Release(key);
  requests_.Keep(key, answer);
  StartJob(go);
}

void AgentServer::OnVerdicts(const dispatchv1::WordVerdicts& verdicts) {
  for (const auto& verdict : verdicts.verdicts()) {
    Obey({verdict.job_id(), verdict.fencing_token()},
         table_.OnVerdict(verdict, around_.loop->NowMicros()));
  }
  FinishDrainIfDone();
}

void AgentServer::Obey(const JobKey& key, JobTable::Order order) {
  if (order == JobTable::Order::kStop) StopJob(key, around_.config.stop_grace);
  if (order == JobTable::Order::kKill) RevokeJob(key);
}

JobProcess* AgentServer::Running(const JobKey& key) {
  for (auto& [pid, process] : processes_) {
    if (process->assigned() && process->key() == key) return process.get();
  }
  return nullptr;
}

void AgentServer::StopJob(const JobKey& key, absl::Duration grace) {
  JobProcess* process = Running(key);
  if (process == nullptr) return RevokeJob(key);  // still without a process
  table_.Stopping(key);
  process->Shutdown(parley::job::v1::Shutdown::TERMINATED, grace, dispatchv1::JOB_REASON_TERMINATED,
                    "terminated");
}

void AgentServer::RevokeJob(const JobKey& key) {
  if (JobProcess* process = Running(key)) return process->Revoke();
  if (undecided_.erase(key) > 0) return Release(key);
  const auto waits = std::find_if(waiting_.begin(), waiting_.end(), [&](const Go& go) {
    return go.assignment().job_id() == key.job_id && go.assignment().fencing_token() == key.token;
  });
  if (waits == waiting_.end()) return;
  waiting_.erase(waits);
  Release(key);
}

// It never had a process, or will not get one.
void AgentServer::Release(const JobKey& key) {
  around_.audit.Release(key, 0);
  table_.Released(key, around_.loop->NowMicros());
  SayWords();
  UpdateGauges();
}

// What one turn of the loop brings goes out together; what was said before is not said again with
// each new word, or a burst of jobs would say everything hundreds of times.
void AgentServer::SayWords() {
  if (std::exchange(words_pending_, true)) return;
  around_.loop->Post([this] {
    words_pending_ = false;
    if (!broker_.registered()) return;  // registering says them all
    ConnectRequest request;
    size_t bytes = 0;
    for (Word& word : table_.TakeUnsaid(around_.loop->NowMicros())) {
      bytes += word.ByteSizeLong();
      *request.mutable_words()->add_words() = std::move(word);
      if (bytes < kWordBytes) continue;
      broker_.Send(std::exchange(request, {}));
      bytes = 0;
    }
    if (bytes > 0) broker_.Send(std::move(request));
  });
}

// What a burst of jobs leaves is freed all over the heap, where the allocator keeps it unless
// asked.
void AgentServer::GiveMemoryBack() {
  swept_ += table_.TakeSwept();
  if (swept_ == 0) return;
  // While jobs come and go they use it again; what the last of them leave is asked for too.
  const bool last = table_.settled() == 0;
  if (!last && (swept_ < kSweptToTrim || table_.settled() > swept_)) return;
  if (around_.tool_threads.Post([] { malloc_trim(0); })) swept_ = 0;
}

void AgentServer::Beat() {
  const int64_t now = around_.loop->NowMicros();
  load_ = load_meter_.Sample();
  table_.Sweep(now);
  GiveMemoryBack();
  requests_.Sweep();
  if (broker_.registered() && now - broker_.heard_us() > kBrokerSilentUs) {
    around_.log.Warn("the broker is silent; connecting again");
    broker_.Break();
  }
  const bool lost = now - broker_.heard_us() > kBrokerLostUs;
  around_.media.KeepTrying(now - broker_.heard_us() > kBrokerSilentUs);
  for (auto& [pid, process] : processes_) process->SetBrokerLost(lost);
  // Perhaps it alone is cut off. If none is better off, nothing is lost by asking.
  if (store_away_since_us_ != 0 && now - store_away_since_us_ >= kStoreAwayUs) broker_.Move();
  ConnectRequest request;
  request.mutable_heartbeat()->set_seq(++beats_);
  request.mutable_heartbeat()->set_load(load_);
  request.mutable_heartbeat()->set_active_jobs(table_.active());
  request.mutable_heartbeat()->set_accepting(accepting());
  broker_.Send(std::move(request));
  // While the store is away the broker keeps what it was told.
  if (store_available_) {
    table_.SayAgain(now - kSayAgainUs);
    SayWords();
  }
  FillWarmPool();  // the load may have fallen
  UpdateGauges();
  if (beats_ % kBeatsPerList == 0 && store_available_) TellRecordings();
}

// Whether their sessions still have records: then they are kept.
void AgentServer::TellRecordings() {
  around_.recordings.List([this](const std::vector<Recordings::Held>& held) {
    ConnectRequest request;
    for (const Recordings::Held& one : held) {
      auto& out = *request.mutable_held_recordings()->add_recordings();
      out.set_session_id(one.session_id);
      out.set_project(one.project);
      out.mutable_ended()->set_seconds(absl::ToUnixSeconds(one.written));
    }
    broker_.Send(std::move(request));
  });
}

// ---- processes ----

void AgentServer::OnZygote() {
  while (std::optional<supervise::Event> event = around_.zygote.Next()) {
    if (auto* ready = std::get_if<supervise::Ready>(&*event)) {
      if (!ready->status.ok()) {
        failed_ = true;
        callbacks_.on_failed(ready->status);
        return;
      }
      ready_ = true;
      cgroups_ = ready->cgroups;
      around_.log.Info(
          cgroups_ ? "each job has a control group of its own"
                   : "jobs have no control groups: limits are the kernel's per process",
          {{"job_memory", SizeText(around_.config.job_memory)}, {"why", ready->no_cgroups}});
      FillWarmPool();
      broker_.Start();
    } else if (auto* forked = std::get_if<supervise::JobForked>(&*event)) {
      OnForked(std::move(*forked));
    } else if (auto* exited = std::get_if<supervise::JobExited>(&*event)) {
      OnExited(*exited);
    } else {
      failed_ = true;
      zygote_watcher_.Stop();
      // Nobody is left to report our end: do it now.
      broker_.ReportGone(identity_.worker_id, identity_.instance, [this](const absl::Status&) {
        callbacks_.on_failed(Aborted("the zygote is gone, and all jobs with it"));
      });
      return;
    }
  }
}

JobProcess* AgentServer::TakeWarm() {
  for (auto& [pid, process] : processes_) {
    if (!process->assigned() && !process->killed()) return process.get();
  }
  return nullptr;
}

void AgentServer::StartJob(const Go& go) {
  WatchJobs();
  if (JobProcess* warm = TakeWarm()) {
    Assign(*warm, go);
    if (!std::exchange(warm_pending_, true)) {
      warm_timer_.StartOnce(kWarmDelay, [this] {
        warm_pending_ = false;
        FillWarmPool();
      });
    }
    return;
  }
  waiting_.push_back(go);
  if (forks_under_way_ < static_cast<int>(waiting_.size())) Fork();
}

void AgentServer::Fork() {
  const AgentServerConfig& config = around_.config;
  supervise::JobLimits limits;
  limits.memory_bytes = config.job_memory;
  limits.cpu_seconds = absl::ToInt64Seconds(absl::Ceil(config.job_cpu_time, absl::Seconds(1)));
  limits.open_files = config.job_open_files;
  limits.network = config.job_network ? supervise::Network::kHost : supervise::Network::kNone;
  limits.hide_memory = !config.common.dev;
  limits.report_refusals = true;
  if (around_.zygote.Fork(++fork_requests_, limits).ok()) ++forks_under_way_;
  WatchJobs();  // until it has started
}

void AgentServer::FillWarmPool() {
  if (!ready_ || draining_ || failed_ || around_.loop->NowMicros() < start_again_us_) return;
  int warm = forks_under_way_ - static_cast<int>(waiting_.size());
  for (const auto& [pid, process] : processes_) warm += process->assigned() ? 0 : 1;
  // Fewer the nearer the load is to where no more jobs come; one to try with after failures.
  const double room =
      std::clamp(1 - load_ / std::max(around_.config.load_threshold, 0.01), 0.0, 1.0);
  int wanted = static_cast<int>(std::ceil(around_.config.EffectiveWarm() * room));
  if (around_.config.load_threshold >= 1) wanted = around_.config.EffectiveWarm();  // no brake
  if (start_failures_ > 0 || !ever_started_) wanted = std::min(wanted, 1);
  wanted = std::min(wanted, table_.slots() - table_.active());
  for (; warm < wanted; ++warm) Fork();
}

void AgentServer::OnForked(supervise::JobForked forked) {
  --forks_under_way_;
  if (!forked.status.ok()) {
    around_.log.Error("cannot start a job process", {{"error", Message(forked.status)}});
    if (waiting_.empty()) return;
    const auto& record = waiting_.front().assignment();
    const JobKey key{record.job_id(), record.fencing_token()};
    waiting_.pop_front();
    around_.metrics.Ended(dispatchv1::JOB_REASON_PROCESS_CRASHED).Increment();
    around_.audit.End(key, 0, dispatchv1::JOB_REASON_PROCESS_CRASHED);
    table_.Ended(key, dispatchv1::JOB_REASON_PROCESS_CRASHED, Message(forked.status), {},
                 around_.loop->NowMicros());
    return SayWords();
  }
  const pid_t pid = forked.pid;
  auto process = std::make_unique<JobProcess>(around_, *this, std::move(forked));
  JobProcess& started = *process;
  processes_[pid] = std::move(process);
  if (!waiting_.empty()) {
    const Go go = std::move(waiting_.front());
    waiting_.pop_front();
    Assign(started, go);
  }
}

void AgentServer::Assign(JobProcess& process, const Go& go) {
  const auto& record = go.assignment();
  around_.audit.Start({record.job_id(), record.fencing_token()}, record.attempt(), process.pid());
  process.AcceptAs(requests_.Take({record.job_id(), record.fencing_token()}));
  if (!record.take_over()) return process.Assign(go);
  process.Hold(go);
}

void AgentServer::OnExited(const supervise::JobExited& exited) {
  const auto it = processes_.find(exited.pid);
  if (it == processes_.end()) return;
  const std::unique_ptr<JobProcess> process = std::move(it->second);
  processes_.erase(it);
  const JobOutcome outcome = process->Finish(exited);
  if (!process->assigned()) {
    if (!process->killed() || process->never_started()) OnStartFailed(outcome.error);
    return FillWarmPool();
  }
  const int64_t now = around_.loop->NowMicros();
  if (outcome.released) {
    around_.audit.Release(process->key(), exited.pid);
    table_.Released(process->key(), now);
  } else {
    around_.audit.End(process->key(), exited.pid, outcome.reason);
    around_.metrics.Ended(outcome.reason).Increment();
    table_.Ended(process->key(), outcome.reason, outcome.error, outcome.session, now);
  }
  SayWords();
  UpdateGauges();
  FillWarmPool();
  TakeNewIdentityIfIdle();
  FinishDrainIfDone();
}

void AgentServer::OnStartFailed(const std::string& error) {
  const absl::Duration wait =
      std::min(kStartBackOff * std::pow(2, std::min(start_failures_, 10)), kLongestBackOff);
  ++start_failures_;
  around_.metrics.start_failures.Increment();
  start_again_us_ = around_.loop->NowMicros() + absl::ToInt64Microseconds(wait);
  around_.log.Warn("a job process could not start",
                   {{"error", error},
                    {"failures", start_failures_},
                    {"next_try_seconds", absl::ToDoubleSeconds(wait)}});
  warm_pending_ = true;
  warm_timer_.StartOnce(wait, [this] {
    warm_pending_ = false;
    FillWarmPool();
  });
}

void AgentServer::OnJobReady(JobProcess&) {
  if (!std::exchange(ever_started_, true)) FillWarmPool();
}

void AgentServer::OnJobEntered(JobProcess& process) {
  around_.audit.Enter(process.key(), process.pid());
  start_failures_ = 0;
  table_.Started(process.key());
  SayWords();
}

void AgentServer::OnJobCheckpoint(JobProcess& process, const std::string& blob) {
  ConnectRequest request;
  auto& checkpoint = *request.mutable_checkpoints()->add_checkpoints();
  checkpoint.set_job_id(process.key().job_id);
  checkpoint.set_fencing_token(process.key().token);
  checkpoint.set_blob(blob);
  broker_.Send(std::move(request));  // lost with the stream: the next turn brings a newer one
}

void AgentServer::OnJobStalled(JobProcess& process, const parley::job::v1::Stalled& stalled) {
  ConnectRequest request;
  auto& stall = *request.mutable_stalls()->add_stalls();
  stall.set_job_id(process.key().job_id);
  stall.set_fencing_token(process.key().token);
  stall.set_stage(stalled.stage());
  stall.set_given_up(stalled.given_up());
  broker_.Send(std::move(request));
}

void AgentServer::WatchJobs() {
  if (std::exchange(watching_, true)) return;
  watch_timer_.StartRepeating(kWatch, [this] {
    for (auto& [pid, process] : processes_) process->Tick();
    const bool all_wait = std::all_of(processes_.begin(), processes_.end(), [](const auto& entry) {
      return !entry.second->assigned() && !entry.second->killed() && entry.second->ready();
    });
    if (table_.active() > 0 || forks_under_way_ > 0 || !all_wait) return;
    watching_ = false;
    watch_timer_.Stop();
  });
}

// ---- the end ----

void AgentServer::Drain(absl::Duration deadline) {
  const int64_t at_us = around_.loop->NowMicros() + absl::ToInt64Microseconds(deadline);
  const bool again = std::exchange(draining_, true);
  if (again && (hand_over_until_us_ > 0 || at_us >= drain_at_us_ || table_.active() == 0)) return;
  drain_at_us_ = at_us;
  around_.log.Info("draining", {{"jobs", table_.active()},
                                {"deadline_seconds", absl::ToDoubleSeconds(deadline)}});
  ConnectRequest request;
  const absl::Time until = absl::Now() + deadline;
  request.mutable_drain()->mutable_deadline()->set_seconds(absl::ToUnixSeconds(until));
  broker_.Send(std::move(request));
  Beat();
  for (auto& [pid, process] : processes_) {
    if (!process->assigned()) {
      process->Kill(dispatchv1::JOB_REASON_UNSPECIFIED, "not needed any more");
    }
  }
  for (const auto& [key, go] : std::exchange(undecided_, {})) Release(key);
  for (const Go& go : std::exchange(waiting_, {})) {
    Release({go.assignment().job_id(), go.assignment().fencing_token()});
  }
  drain_timer_.StartOnce(deadline, [this] { OnDrainDeadline(); });
  FinishDrainIfDone();
}

// Leaves once nothing runs and the broker has recorded every end; words that find no broker are
// waited for a few seconds, then its lease settles them.
void AgentServer::FinishDrainIfDone() {
  if (!draining_ || drained_ || table_.active() > 0) return;
  const auto leave = [this] {
    if (std::exchange(drained_, true)) return;
    beat_timer_.Stop();
    if (!registered_once_) {
      broker_.Close();
      return callbacks_.on_drained();
    }
    broker_.ReportGone(identity_.worker_id, identity_.instance, [this](const absl::Status& status) {
      if (!status.ok()) {
        around_.log.Warn("the broker does not know that we left", {{"error", Message(status)}});
      }
      broker_.Close();
      callbacks_.on_drained();
    });
  };
  if (!table_.has_unanswered()) return leave();
  drain_timer_.StartOnce(kLeaveTimeout, leave);
}

}  // namespace parley::agent
