#pragma once
// Between parley.dispatch.v1 and the domain. Enum values are the same numbers.
#include <absl/status/statusor.h>

#include <string>

#include "job/records.h"
#include "parley/dispatch/v1/dispatch.pb.h"
#include "parley/dispatch/v1/worker.pb.h"

namespace parley::dispatch_broker {

namespace v1 = ::parley::dispatch::v1;

void SetTime(absl::Time time, google::protobuf::Timestamp* out);
absl::Time FromTime(const google::protobuf::Timestamp& time);
void SetDuration(absl::Duration duration, google::protobuf::Duration* out);
absl::Duration FromDuration(const google::protobuf::Duration& duration);

v1::Dispatch ToProto(const job::Dispatch& dispatch);
v1::Job ToProto(const job::Job& job);
v1::Worker ToProto(const job::Worker& worker);
v1::Event ToProto(const job::Event& event);
v1::Assignment ToProto(const job::Assignment& assignment);
v1::ResumeVerdict ToProto(const job::ResumeVerdict& verdict);
v1::WordVerdict ToProto(const job::WordVerdict& verdict);

// The asker's part; project, pool and ids are filled in later.
job::NewDispatch FromProto(const v1::CreateDispatchRequest& request);
job::RoomPresence FromProto(const v1::RoomPresence& presence);
// Of everything that makes two requests the same: all fields but request_id and session_id.
std::string RequestHash(const v1::CreateDispatchRequest& request);

job::Registration FromProto(const v1::Register& request);
std::vector<job::ReportedJob> FromProto(const v1::Report& report);
// InvalidArgument: a word without a kind.
absl::StatusOr<job::Word> FromProto(const v1::Word& word);

}  // namespace parley::dispatch_broker
