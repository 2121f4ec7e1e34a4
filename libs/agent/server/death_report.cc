#include "agent/server/death_report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>

#include "agent/server/serve.h"
#include "base/clock.h"
#include "base/status.h"
#include "parley/dispatch/v1/worker.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::agent {
namespace {

constexpr int64_t kTryForUs = 8'000'000;

absl::Status ReportOnce(const DeathNotice& notice,
                        parley::dispatch::v1::WorkerService::Stub& stub) {
  grpc::ClientContext context;
  rpc::SetBearer(context, notice.token);
  rpc::SetTimeout(context, absl::Seconds(2));
  parley::dispatch::v1::ReportDeathRequest request;
  request.set_worker_id(notice.worker_id);
  request.set_instance(notice.instance);
  request.set_connect_seq(notice.connect_seq);
  parley::dispatch::v1::ReportDeathResponse response;
  return rpc::FromGrpcStatus(stub.ReportDeath(&context, request, &response));
}

}  // namespace

std::string DeathNotice::Serialize() const {
  return nlohmann::json{{"broker_address", broker_address},
                        {"token", token},
                        {"worker_id", worker_id},
                        {"instance", instance},
                        {"connect_seq", connect_seq},
                        {"tls_certificate", tls.certificate},
                        {"tls_key", tls.key},
                        {"tls_authorities", tls.authorities},
                        {"tls_server_name", tls.server_name}}
      .dump();
}

absl::StatusOr<DeathNotice> DeathNotice::Parse(std::string_view text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  DeathNotice notice;
  try {
    json.at("broker_address").get_to(notice.broker_address);
    json.at("token").get_to(notice.token);
    json.at("worker_id").get_to(notice.worker_id);
    json.at("instance").get_to(notice.instance);
    json.at("connect_seq").get_to(notice.connect_seq);
    json.at("tls_certificate").get_to(notice.tls.certificate);
    json.at("tls_key").get_to(notice.tls.key);
    json.at("tls_authorities").get_to(notice.tls.authorities);
    json.at("tls_server_name").get_to(notice.tls.server_name);
  } catch (const nlohmann::json::exception& error) {
    return InvalidArgument("not a death notice: {}", error.what());
  }
  return notice;
}

int ReportDeath() {
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = read(STDIN_FILENO, buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, static_cast<size_t>(got));
  }
  const absl::StatusOr<DeathNotice> notice = DeathNotice::Parse(text);
  if (!notice.ok()) {
    fmt::print(stderr, "death report: {}\n", Message(notice.status()));
    return 2;
  }
  rpc::UseTls(notice->tls);
  const auto stub =
      parley::dispatch::v1::WorkerService::NewStub(rpc::MakeChannel(notice->broker_address));
  const int64_t until = Clock::Real().MonotonicMicros() + kTryForUs;
  absl::Status status;
  do {
    status = ReportOnce(*notice, *stub);
    if (status.ok()) return 0;
    usleep(200'000);
  } while (absl::IsUnavailable(status) && Clock::Real().MonotonicMicros() < until);
  fmt::print(stderr, "death report of {}: {}; its jobs go to others when its lease ends\n",
             notice->worker_id, Message(status));
  return 1;
}

bool HandledDeathReport(int argc, char** argv, int* exit_code) {
  if (argc != 2 || std::strcmp(argv[1], kDeathReportFlag) != 0) return false;
  *exit_code = ReportDeath();
  return true;
}

}  // namespace parley::agent
