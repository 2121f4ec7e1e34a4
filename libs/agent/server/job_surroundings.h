#pragma once
#include <memory>

#include "agent/server/audit_log.h"
#include "agent/server/config.h"
#include "agent/server/gateways.h"
#include "agent/server/job_logs.h"
#include "agent/server/media.h"
#include "agent/server/metrics.h"
#include "agent/server/recordings.h"
#include "base/executor.h"
#include "event/loop.h"
#include "http/client.h"
#include "log/log.h"
#include "supervise/zygote.h"
#include "tools/mcp_hub.h"
#include "trace/tracer.h"

namespace parley::agent {

// What all job processes of a server share. Outlives them.
struct JobSurroundings {
  std::shared_ptr<event::Loop> loop;
  supervise::ZygoteClient& zygote;
  const AgentServerConfig& config;
  AgentServerMetrics& metrics;
  MediaHub& media;
  Gateways& gateways;
  Executor& tool_threads;
  Executor& list_threads;  // ask MCP servers what they offer: no call of a tool is waited for
  std::shared_ptr<http::Client> http;
  std::shared_ptr<tools::McpHub> mcp;
  AuditLog& audit;
  JobLogs& logs;
  Recordings& recordings;
  log::Logger log;
  trace::Tracer tracer;
};

}  // namespace parley::agent
