#include "dispatch_broker/worker_table.h"

#include <utility>

#include "dispatch_broker/worker_session.h"

namespace parley::dispatch_broker {

std::shared_ptr<WorkerSession> WorkerTable::Put(const std::string& worker_id,
                                                std::shared_ptr<WorkerSession> session) {
  MutexLock lock(&mutex_);
  return std::exchange(sessions_[worker_id], std::move(session));
}

void WorkerTable::Remove(const std::string& worker_id, const WorkerSession* session) {
  MutexLock lock(&mutex_);
  const auto it = sessions_.find(worker_id);
  if (it != sessions_.end() && it->second.get() == session) sessions_.erase(it);
}

std::shared_ptr<WorkerSession> WorkerTable::Find(std::string_view worker_id) const {
  MutexLock lock(&mutex_);
  const auto it = sessions_.find(worker_id);
  return it == sessions_.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<WorkerSession>> WorkerTable::All() const {
  MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<WorkerSession>> all;
  for (const auto& [id, session] : sessions_) all.push_back(session);
  return all;
}

std::vector<std::shared_ptr<WorkerSession>> WorkerTable::OfPool(std::string_view pool) const {
  std::vector<std::shared_ptr<WorkerSession>> found = All();
  std::erase_if(found, [pool](const auto& session) { return session->pool() != pool; });
  return found;
}

void WorkerTable::Deliver(const job::Message& message) const {
  if (const auto session = Find(message.worker_id)) session->Tell(message);
}

}  // namespace parley::dispatch_broker
