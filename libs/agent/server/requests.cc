#include "agent/server/requests.h"

#include <exception>
#include <thread>
#include <utility>

#include "agent/job/convert.h"

namespace parley::agent {
namespace {

constexpr int kMaxOpen = 64;
constexpr int64_t kKeepUs = 60'000'000;  // an accepted job starts at once, or not at all

JobAnswer AnswerOf(const Requests::Hook& hook, const JobInfo& info) {
  try {
    return hook(info);
  } catch (const std::exception& error) {
    return JobAnswer::Reject(std::string("on_request threw: ") + error.what());
  } catch (...) {
    return JobAnswer::Reject("on_request threw");
  }
}

}  // namespace

Requests::Requests(std::shared_ptr<event::Loop> loop, Hook hook)
    : loop_(std::move(loop)),
      hook_(hook ? std::make_shared<const Hook>(std::move(hook)) : nullptr) {}

Requests::~Requests() { *self_ = nullptr; }

void Requests::Ask(const parley::dispatch::v1::Assignment& record, Done done) {
  if (!asks()) return done(JobAnswer::Accept());
  if (open_ >= kMaxOpen) return done(JobAnswer::Reject("too many questions are open"));
  ++open_;
  parley::job::v1::Assignment assignment;
  *assignment.mutable_job() = record;
  std::thread([hook = hook_, info = InfoOf(assignment), done = std::move(done), loop = loop_,
               self = self_]() mutable {
    JobAnswer answer = AnswerOf(*hook, info);
    loop->Post([self, answer = std::move(answer), done = std::move(done)] {
      if (*self == nullptr) return;
      --(*self)->open_;
      done(answer);
    });
  }).detach();
}

void Requests::Keep(const JobKey& key, JobAnswer answer) {
  if (asks()) kept_[key] = {std::move(answer), loop_->NowMicros()};
}

JobAnswer Requests::Take(const JobKey& key) {
  const auto found = kept_.find(key);
  if (found == kept_.end()) return JobAnswer::Accept();
  JobAnswer answer = std::move(found->second.answer);
  kept_.erase(found);
  return answer;
}

void Requests::Sweep() {
  const int64_t now_us = loop_->NowMicros();
  std::erase_if(kept_,
                [now_us](const auto& one) { return now_us - one.second.since_us > kKeepUs; });
}

}  // namespace parley::agent
